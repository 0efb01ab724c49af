#!/usr/bin/env bash
# Runs a command with one node of Apache Kafka beside it: run.sh COMMAND...
# The command finds the broker's address in MOLDAU_KAFKA and its process id in MOLDAU_KAFKA_PID. The node keeps its data in a directory that is removed
# afterwards. Needs a JDK of at least 17 and, the first time, mvn; without them it says why it skips.
#   KAFKA_LIB    a directory with Kafka's jars; default: fetched from Maven, once, into the user's cache
#   KAFKA_HEAP   the node's heap, default 512m
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

skip() { echo "skipped: $*"; exit 0; }

command -v java > /dev/null || skip "Apache Kafka needs a JVM, and there is no java"
version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
[ "${version:-0}" -ge 17 ] || skip "Apache Kafka needs Java 17, this is ${version:-unknown}"

lib=${KAFKA_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/moldau/kafka-4.3.1}
if [ ! -f "$lib/.complete" ] && [ -z "${KAFKA_LIB:-}" ]; then
  command -v mvn > /dev/null || skip "fetching Apache Kafka needs mvn, and there is none"
  mkdir -p "$lib"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$lib" ||
    skip "Apache Kafka could not be fetched from Maven"
  touch "$lib/.complete"
fi

data=$(mktemp -d)
node=
cleanup() {
  if [ -n "$node" ]; then
    kill "$node" 2> /dev/null || true
    wait "$node" 2> /dev/null || true
  fi
  rm -rf "$data"
}
trap cleanup EXIT

# Two free ports next to each other: nothing answers on them. Below 32768, from where on Linux takes those of outgoing connections.
port=$((20000 + RANDOM % 12000))
while (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || (exec 3<> "/dev/tcp/127.0.0.1/$((port + 1))") 2> /dev/null; do
  port=$((port + 2))
done

cat > "$data/server.properties" << PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$data/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=10
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=10
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.min.assignment.interval.ms=0
group.consumer.assignment.interval.ms=0
group.streams.initial.rebalance.delay.ms=0
group.streams.assignment.interval.ms=0
group.streams.min.session.timeout.ms=6000
group.streams.min.heartbeat.interval.ms=100
group.consumer.assignor.offload.enable=false
PROPERTIES

jvm=(java -Xmx"${KAFKA_HEAP:-512m}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$lib/*")
"${jvm[@]}" kafka.tools.StorageTool format -t bW9sZGF1LWthZmthLXRlc3Q -c "$data/server.properties" > "$data/out" 2>&1 ||
  { cat "$data/out"; exit 1; }
"${jvm[@]}" kafka.Kafka "$data/server.properties" > "$data/out" 2>&1 &
node=$!

for _ in $(seq 360); do
  if (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then
    echo "Apache Kafka on 127.0.0.1:$port"
    status=0
    MOLDAU_KAFKA=127.0.0.1:$port MOLDAU_KAFKA_PID=$node "$@" || status=$?
    [ "$status" = 0 ] || { echo "the node's last words:"; tail -20 "$data/out"; }
    exit "$status"
  fi
  kill -0 "$node" 2> /dev/null || { cat "$data/out"; exit 1; }
  sleep 0.5
done
echo "Apache Kafka did not open its port within three minutes"
tail -20 "$data/out"
exit 1
