#!/usr/bin/env bash
# Kafka Connect, standalone: a file into a topic and back into a file.
set -euo pipefail
dir=$(mktemp -d)
node=
trap 'if [ -n "$node" ]; then kill $node; wait $node || true; fi 2> /dev/null; rm -rf "$dir"' EXIT
seq 1 500 > "$dir/in"
java -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$LIB/*" org.apache.kafka.tools.TopicCommand --bootstrap-server "$BOOTSTRAP" --create --topic "$RUN" --partitions 1 --replication-factor 1
port=$((20000 + RANDOM % 20000))
cat > "$dir/worker" << PROPERTIES
bootstrap.servers=$BOOTSTRAP
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.file.filename=$dir/offsets
offset.flush.interval.ms=500
listeners=http://127.0.0.1:$port
PROPERTIES
cat > "$dir/source" << PROPERTIES
name=$RUN-source
connector.class=org.apache.kafka.connect.file.FileStreamSourceConnector
file=$dir/in
topic=$RUN
PROPERTIES
cat > "$dir/sink" << PROPERTIES
name=$RUN-sink
connector.class=org.apache.kafka.connect.file.FileStreamSinkConnector
file=$dir/out
topics=$RUN
PROPERTIES
java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$LIB/*:$FILES" org.apache.kafka.connect.cli.ConnectStandalone "$dir/worker" "$dir/source" "$dir/sink" > "$dir/log" 2>&1 &
node=$!
for _ in $(seq 90); do
  if cmp -s "$dir/in" "$dir/out"; then
    echo "file source and file sink, 500 lines"
    exit 0
  fi
  kill -0 $node || break
  sleep 1
done
tail -20 "$dir/log"
echo "lines that came through: $(wc -l < "$dir/out" 2> /dev/null || echo none)"
exit 1
