#!/usr/bin/env bash
# Kafka Streams' own system tests as judges of our application, on Apache Kafka and on the bundled broker; and of Java's
# application on the bundled broker, which is killed as well, with its classic and with its streams group protocol. See
# internal/judges.
#   run.sh [TRIAL...]     TOPOLOGY/GUARANTEE/CLUSTER[/wrong|/java|/streams|/broker], such as smoke/eos/moldau; default: all below
# Needs a JDK of at least 17 and, the first time, mvn; without them it says why it skips.
#   JUDGES_FULL=1   as many records as in Kafka's own runs, over 90 and 60 seconds, and 20 kills
#   JUDGES_ARGS     further flags for each trial
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
lib=${KAFKA_STREAMS_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/moldau/kafka-streams-4.3.1}

# try TRIAL runs one, inside of $JUDGES_WORK.
try() {
  local topology guarantee cluster special args status=0
  IFS=/ read -r topology guarantee cluster special <<< "$1"
  case $topology in
    smoke) args=(-first 10 -second 300 -seconds 15) ;;
    relational) args=(-first 100 -second 1000 -seconds 15) ;;
    *) echo "there is no trial $1"; return 1 ;;
  esac
  if [ -n "${JUDGES_FULL:-}" ]; then
    args=(-first 20 -second 1000 -seconds 90 -kills 20)
    [ "$topology" = smoke ] || args=(-first 1000 -second 10000 -seconds 60 -kills 20)
  fi
  [ "$guarantee" = eos ] || args+=(-guarantee at-least-once)
  case $special in
    '') ;;
    wrong) args+=(-wrong -second 300 -seconds 6 -kills 2) ;;
    java) args+=(-client java -kills 5 -kill-broker 3) ;;
    streams)
      args+=(-client java -protocol streams -kills 5)
      [ "$cluster" = kafka ] || args+=(-kill-broker 3) ;;
    broker) args+=(-kill-broker 4) ;;
    *) echo "there is no trial $1"; return 1 ;;
  esac
  args=(-topology "$topology" -moldau "$JUDGES_WORK/moldau" -dir "$JUDGES_WORK/state"
    -java "java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp $lib/*:$JUDGES_WORK" "${args[@]}")
  rm -rf "$JUDGES_WORK/state"
  # shellcheck disable=SC2086
  case $cluster in
    moldau) "$JUDGES_WORK/judges" "${args[@]}" ${JUDGES_ARGS:-} ;;
    kafka) "$root/scripts/kafka/run.sh" sh -c 'exec "$0" -brokers "$MOLDAU_KAFKA" "$@"' "$JUDGES_WORK/judges" "${args[@]}" ${JUDGES_ARGS:-} ;;
    *) echo "there is no trial $1"; return 1 ;;
  esac > "$JUDGES_WORK/out" 2>&1 || status=$?
  if [ "$status" != 0 ]; then
    printf '%-28s FAILED\n' "$1"
    { cat "$JUDGES_WORK/out"; for f in "$JUDGES_WORK"/state/*.log; do echo "== $f"; tail -n 20 "$f" | cut -c-500; done; } | sed 's/^/    /'
    return 1
  fi
  if grep -m1 '^skipped: ' "$JUDGES_WORK/out" > "$JUDGES_WORK/why"; then
    printf '%-28s %s\n' "$1" "$(cat "$JUDGES_WORK/why")"
    return
  fi
  printf '%-28s %s\n' "$1" "$(tail -n 2 "$JUDGES_WORK/out" | paste -sd' ')"
}

skip() { echo "skipped: $*"; exit 0; }

command -v java > /dev/null && command -v javac > /dev/null || skip "Java's judges need a JDK, and there is none"
version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
[ "${version:-0}" -ge 17 ] || skip "Java's judges need Java 17, this is ${version:-unknown}"
if [ ! -f "$lib/.complete" ] && [ -z "${KAFKA_STREAMS_LIB:-}" ]; then
  command -v mvn > /dev/null || skip "fetching Kafka Streams needs mvn, and there is none"
  mkdir -p "$lib"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$lib" > /dev/null || skip "Kafka Streams could not be fetched from Maven"
  touch "$lib/.complete"
fi

JUDGES_WORK=$(mktemp -d)
keep=
cleanup() { [ -n "$keep" ] && echo "logs and state of the last trial that failed are in $JUDGES_WORK" || rm -rf "$JUDGES_WORK"; }
trap cleanup EXIT
javac -cp "$lib/*" -d "$JUDGES_WORK" "$here/Judge.java" || exit 1
(cd "$root" && CGO_ENABLED=0 go build -o "$JUDGES_WORK" ./cmd/moldau ./internal/judges) || exit 1

[ $# -gt 0 ] || set -- smoke/eos/moldau relational/eos/moldau smoke/alo/kafka relational/alo/kafka \
  smoke/alo/moldau relational/alo/moldau smoke/eos/kafka relational/eos/kafka \
  smoke/eos/moldau/broker relational/eos/moldau/broker smoke/eos/moldau/java relational/eos/moldau/java \
  smoke/eos/moldau/streams relational/eos/moldau/streams \
  smoke/eos/moldau/wrong relational/eos/moldau/wrong
status=0
for trial in "$@"; do
  if ! try "$trial"; then
    status=1 keep=1
    break
  fi
done
exit $status
