#!/usr/bin/env bash
# Applications of Kafka Streams and of ours take over from each other on Apache Kafka: run.sh [TOPOLOGY...], default: all of them
# (takeover_apps_test.go). Needs a JDK of at least 17 and, the first time, mvn; without them it says why it skips.
#   STREAMS_LIB  a directory with the jars of Kafka Streams; default: fetched from Maven, once, into the user's cache
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

skip() { echo "skipped: $*"; exit 0; }

command -v javac > /dev/null || skip "Kafka Streams needs a JDK, and there is no javac"
version=$(javac -version 2>&1 | sed -n 's/javac \([0-9]*\).*/\1/p')
[ "${version:-0}" -ge 17 ] || skip "Kafka Streams needs Java 17, this is ${version:-unknown}"

lib=${STREAMS_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/moldau/kafka-streams-4.3.1}
if [ ! -f "$lib/.complete" ] && [ -z "${STREAMS_LIB:-}" ]; then
  command -v mvn > /dev/null || skip "fetching Kafka Streams needs mvn, and there is none"
  mkdir -p "$lib"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$lib" ||
    skip "Kafka Streams could not be fetched from Maven"
  touch "$lib/.complete"
fi

classes=$(mktemp -d)
trap 'rm -rf "$classes"' EXIT
javac -cp "$lib/*" -d "$classes" "$here/Takeover.java"
cd "$root"
MOLDAU_TAKEOVER="$lib/*:$classes" MOLDAU_TOPOLOGIES=$(IFS=,; echo "$*") \
  "$root/scripts/kafka/run.sh" go test -count=1 -timeout 20m -v -run TestTakeover .
