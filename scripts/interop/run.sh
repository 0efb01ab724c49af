#!/usr/bin/env bash
# Real clients in other languages against the bundled broker, and the same programs against Apache Kafka as the oracle:
# where the two differ, the bundled broker is wrong until argued otherwise. Each program checks its own results.
#   run.sh [-bundled] [CLIENT...]     default: all of java streams tools connect confluent aiokafka kafkajs sarama segmentio
# With -bundled Apache Kafka is left out.
# Clients come from their registries by ordinary means, once, into the user's cache; what cannot be had is skipped, and
# said so.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/moldau/interop
lib=${KAFKA_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/moldau/kafka-4.3.1}
work=$(mktemp -d)
mkdir -p "$cache"
bundled=
[ "${1:-}" != -bundled ] || { bundled=1; shift; }
clients=("$@")
[ $# -gt 0 ] || clients=(java streams tools connect confluent aiokafka kafkajs sarama segmentio)

broker=
cleanup() {
  if [ -n "$broker" ]; then
    kill "$broker" 2> /dev/null
    wait "$broker" 2> /dev/null
  fi
  rm -rf "$work"
}
trap cleanup EXIT

# prepare CLIENT fetches what a client needs; it fails with the reason on its last line.
prepare() {
  case $1 in
    java | streams | tools | connect)
      [ -f "$lib/.complete" ] || "$root/scripts/kafka/run.sh" true > /dev/null
      [ -f "$lib/.complete" ] || { echo "no JDK of at least 17, or no Maven"; return 1; }
      if [ "$1" = connect ] && [ ! -f "$cache/connect-file-4.3.1.jar" ]; then
        mvn -q -B dependency:copy -Dartifact=org.apache.kafka:connect-file:4.3.1 -DoutputDirectory="$cache" > "$work/mvn" 2>&1 ||
          { echo "the file connectors could not be fetched from Maven"; return 1; }
      fi
      if [ "$1" = streams ]; then
        for artifact in kafka-streams:4.3.1 rocksdbjni:10.1.3; do
          [ -f "$cache/streams/${artifact/:/-}.jar" ] && continue
          local org=org.apache.kafka
          [ "${artifact%%:*}" = kafka-streams ] || org=org.rocksdb
          mvn -q -B dependency:copy "-Dartifact=$org:$artifact" -DoutputDirectory="$cache/streams" > "$work/mvn" 2>&1 ||
            { echo "Kafka Streams could not be fetched from Maven"; return 1; }
        done
      fi ;;
    confluent | aiokafka)
      local package=confluent-kafka==2.12.1
      [ "$1" = confluent ] || package=aiokafka==0.12.0
      command -v python3 > /dev/null || { echo "no python3"; return 1; }
      [ -d "$cache/$1" ] || python3 -m pip install -q --disable-pip-version-check --target "$cache/$1.part" "$package" > "$work/pip" 2>&1 && { [ -d "$cache/$1" ] || mv "$cache/$1.part" "$cache/$1"; } ||
        { echo "pip could not fetch $package"; return 1; } ;;
    kafkajs)
      command -v npm > /dev/null || { echo "no npm"; return 1; }
      [ -d "$cache/kafkajs/node_modules/kafkajs" ] || npm install --silent --no-audit --no-fund --prefix "$cache/kafkajs" kafkajs@2.2.4 > "$work/npm" 2>&1 ||
        { echo "npm could not fetch kafkajs"; return 1; } ;;
    sarama | segmentio)
      (cd "$here/go" && CGO_ENABLED=0 go build -o "$cache/gointerop" .) > "$work/go" 2>&1 || { echo "the Go module proxy has no clients"; return 1; } ;;
    *) echo "there is no such client"; return 1 ;;
  esac
}

# try CLIENT ADDRESS runs one client against one broker.
try() {
  export BOOTSTRAP=$2 RUN="$1-$RANDOM$RANDOM"
  case $1 in
    java) timeout 120 java -cp "$lib/*" "$here/java/Interop.java" ;;
    streams) timeout 180 java -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$lib/*:$cache/streams/*" "$here/java/Streams.java" ;;
    tools) LIB=$lib timeout 400 bash "$here/java/tools.sh" ;;
    connect) LIB=$lib FILES=$cache/connect-file-4.3.1.jar timeout 120 bash "$here/java/connect.sh" ;;
    confluent) PYTHONPATH=$cache/confluent timeout 120 python3 "$here/python/confluent.py" ;;
    aiokafka) PYTHONPATH=$cache/aiokafka timeout 120 python3 "$here/python/aio.py" ;;
    kafkajs) NODE_PATH=$cache/kafkajs/node_modules timeout 120 node "$here/node/kafkajs.js" ;;
    sarama | segmentio) timeout 120 "$cache/gointerop" "$1" ;;
  esac
}

# all ADDRESS NAME runs every client and prints a line each.
all() {
  local failed=0 why start
  for c in "${clients[@]}"; do
    if ! why=$(prepare "$c"); then
      printf '%-10s %-8s %4d s  skipped: %s\n' "$c" "$2" 0 "$(tail -1 <<< "$why")"
      continue
    fi
    start=$SECONDS
    if try "$c" "$1" > "$work/out" 2> "$work/err"; then
      printf '%-10s %-8s %4d s  passed: %s\n' "$c" "$2" "$((SECONDS - start))" "$(tail -1 "$work/out")"
    else
      printf '%-10s %-8s %4d s  FAILED\n' "$c" "$2" "$((SECONDS - start))"
      { cat "$work/out"; tail -30 "$work/err"; } | sed 's/^/    /'
      failed=1
    fi
  done
  return $failed
}

if [ -n "${MOLDAU_INTEROP_ORACLE:-}" ]; then # called again, beside Apache Kafka
  all "$MOLDAU_KAFKA" kafka
  exit
fi

cd "$root" || exit 1
CGO_ENABLED=0 go build -o "$work/moldau" ./cmd/moldau || exit 1
"$work/moldau" broker -data "$work/data" -listen 127.0.0.1:0 -partitions 3 -log warn > "$work/broker" 2> "$work/broker.err" &
broker=$!
for _ in $(seq 100); do
  addr=$(sed -n 's/.*listens on \(.*\), data.*/\1/p' "$work/broker")
  [ -z "$addr" ] || break
  sleep 0.1
done
[ -n "$addr" ] || { cat "$work/broker.err"; exit 1; }
status=0
all "$addr" moldau || status=1
[ -n "$bundled" ] || MOLDAU_INTEROP_ORACLE=1 "$root/scripts/kafka/run.sh" "$here/run.sh" "${clients[@]}" || status=1
exit $status
