#!/usr/bin/env bash
# Kafka's command-line tools.
set -euo pipefail
tool() { java -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$LIB/*" "$@"; }
expect() { grep -q "$1" || { echo "expected: $1"; exit 1; }; }
B="--bootstrap-server $BOOTSTRAP"
tool org.apache.kafka.tools.TopicCommand $B --create --topic "$RUN" --partitions 2 --replication-factor 1
tool org.apache.kafka.tools.TopicCommand $B --describe --topic "$RUN" | expect 'PartitionCount: 2'
tool kafka.admin.ConfigCommand $B --alter --entity-type topics --entity-name "$RUN" --add-config retention.ms=5000000
tool kafka.admin.ConfigCommand $B --describe --entity-type topics --entity-name "$RUN" | expect retention.ms=5000000
tool org.apache.kafka.tools.ProducerPerformance --topic "$RUN" --num-records 2000 --record-size 100 --throughput -1 --bootstrap-server "$BOOTSTRAP" | expect '2000 records sent'
tool org.apache.kafka.tools.ConsumerPerformance $B --topic "$RUN" --num-records 2000 --group "$RUN" --timeout 20000 | expect ', 2000,'
tool org.apache.kafka.tools.GetOffsetShell $B --topic "$RUN" | awk -F: '{n += $3} END {exit n != 2000}'
tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand $B --describe --group "$RUN" 2>&1 | expect "$RUN"
tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand $B --reset-offsets --to-earliest --execute --group "$RUN" --topic "$RUN" | expect "$RUN"
tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand $B --delete --group "$RUN" | expect successful
tool org.apache.kafka.tools.TransactionsCommand $B list | expect TransactionalId
tool org.apache.kafka.tools.LogDirsCommand $B --describe --topic-list "$RUN" | expect "$RUN"
tool kafka.admin.ConfigCommand $B --alter --entity-type users --entity-name "$RUN" --add-config 'producer_byte_rate=1000000,controller_mutation_rate=2.5'
tool kafka.admin.ConfigCommand $B --describe --entity-type users --entity-name "$RUN" | expect 'controller_mutation_rate=2.5.*producer_byte_rate=1000000'
tool kafka.admin.ConfigCommand $B --alter --entity-type ips --entity-name 192.0.2.1 --add-config connection_creation_rate=10
tool kafka.admin.ConfigCommand $B --describe --entity-type ips --entity-name 192.0.2.1 | expect connection_creation_rate=10
tool org.apache.kafka.tools.TopicCommand $B --delete --topic "$RUN"
echo "topics, configs, perf, get-offsets, consumer-groups, transactions, log-dirs, quotas"
