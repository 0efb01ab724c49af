import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

/** Java's clients: administration, every codec, both group protocols, transactions that commit, abort and fence. */
public class Interop {
  static final String BOOTSTRAP = System.getenv("BOOTSTRAP"), RUN = System.getenv("RUN");

  static void check(boolean ok, String what) {
    if (!ok) throw new AssertionError(what);
  }

  static Properties props(String... pairs) {
    Properties p = new Properties();
    p.put("bootstrap.servers", BOOTSTRAP);
    for (int i = 0; i < pairs.length; i += 2) p.put(pairs[i], pairs[i + 1]);
    return p;
  }

  static KafkaProducer<String, String> producer(String... pairs) {
    return new KafkaProducer<>(props(pairs), new StringSerializer(), new StringSerializer());
  }

  static KafkaConsumer<String, String> consumer(String... pairs) {
    Properties p = props(pairs);
    p.putIfAbsent("auto.offset.reset", "earliest");
    p.put("enable.auto.commit", "false");
    return new KafkaConsumer<>(p, new StringDeserializer(), new StringDeserializer());
  }

  static List<String> read(KafkaConsumer<String, String> c, int n, long quietMillis) {
    List<String> got = new ArrayList<>();
    long until = System.currentTimeMillis() + (n > 0 ? 30_000 : quietMillis);
    while (System.currentTimeMillis() < until && (n == 0 || got.size() < n))
      for (ConsumerRecord<String, String> r : c.poll(Duration.ofMillis(200))) got.add(r.value());
    Collections.sort(got);
    return got;
  }

  static List<String> values(String prefix, int n) {
    List<String> want = new ArrayList<>();
    for (int i = 0; i < n; i++) want.add(prefix + "-" + String.format("%04d", i));
    Collections.sort(want);
    return want;
  }

  static void fails(Class<?> want, KafkaFuture<?> f) throws Exception {
    try {
      f.get();
    } catch (java.util.concurrent.ExecutionException e) {
      check(want.isInstance(e.getCause()), want + " expected, not " + e.getCause());
      return;
    }
    throw new AssertionError(want + " expected");
  }

  public static void main(String[] args) throws Exception {
    String topic = RUN;
    try (Admin admin = Admin.create(props())) {
      check(admin.describeCluster().nodes().get().size() == 1, "one node");
      NewTopic t = new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", "600000"));
      admin.createTopics(List.of(t)).all().get();
      fails(TopicExistsException.class, admin.createTopics(List.of(t)).all());
      fails(InvalidConfigurationException.class, admin.createTopics(List.of(new NewTopic(topic + "x", 1, (short) 1).configs(Map.of("no.such", "1")))).all());
      fails(UnknownTopicOrPartitionException.class, admin.describeTopics(List.of(topic + "none")).allTopicNames());
      check(admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 3, "partitions");
      ConfigResource r = new ConfigResource(ConfigResource.Type.TOPIC, topic);
      check(admin.describeConfigs(List.of(r)).all().get().get(r).get("retention.ms").value().equals("600000"), "retention.ms");
      admin.incrementalAlterConfigs(Map.of(r, List.of(new AlterConfigOp(new ConfigEntry("segment.ms", "70000"), AlterConfigOp.OpType.SET)))).all().get();
      check(admin.describeConfigs(List.of(r)).all().get().get(r).get("segment.ms").value().equals("70000"), "segment.ms");

      int n = 0;
      for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd"))
        try (KafkaProducer<String, String> p = producer("compression.type", codec, "linger.ms", "20")) {
          for (int i = 0; i < 100; i++, n++)
            p.send(new ProducerRecord<>(topic, "key" + n % 7, "value-" + String.format("%04d", n)));
        }
      for (String protocol : List.of("classic", "consumer")) {
        String group = RUN + "-" + protocol;
        try (KafkaConsumer<String, String> c = consumer("group.id", group, "group.protocol", protocol)) {
          c.subscribe(List.of(topic));
          check(read(c, n, 0).equals(values("value", n)), protocol + ": every record once");
          c.commitSync();
          check(c.committed(Set.of(new TopicPartition(topic, 0))).get(new TopicPartition(topic, 0)).offset() > 0, "a commit");
        }
        try (KafkaConsumer<String, String> c = consumer("group.id", group, "group.protocol", protocol)) {
          c.subscribe(List.of(topic));
          check(read(c, 0, 4000).isEmpty(), protocol + ": nothing is read twice");
        }
        check(admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupId().equals(group), "description");
        admin.deleteConsumerGroups(List.of(group)).all().get();
      }
      String tx = RUN + "-tx";
      admin.createTopics(List.of(new NewTopic(tx, 2, (short) 1))).all().get();
      KafkaProducer<String, String> old = producer("transactional.id", RUN);
      old.initTransactions();
      for (boolean commit : new boolean[] {true, false, true}) {
        old.beginTransaction();
        for (int i = 0; i < 10; i++) old.send(new ProducerRecord<>(tx, "k" + i, (commit ? "yes-" : "no-") + String.format("%04d", i)));
        old.sendOffsetsToTransaction(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(commit ? 5 : 99)), new ConsumerGroupMetadata(RUN + "-eos"));
        if (commit) old.commitTransaction(); else old.abortTransaction();
      }
      old.beginTransaction();
      old.send(new ProducerRecord<>(tx, "k", "zombie-0000")).get();
      KafkaProducer<String, String> fresh = producer("transactional.id", RUN);
      fresh.initTransactions();
      try {
        old.commitTransaction();
        check(false, "a fenced producer commits");
      } catch (ProducerFencedException | InvalidProducerEpochException e) {
        // as it should be
      }
      old.close(Duration.ZERO);
      fresh.close();
      try (KafkaConsumer<String, String> c = consumer("group.id", RUN + "-rc", "isolation.level", "read_committed")) {
        c.subscribe(List.of(tx));
        List<String> want = values("yes", 10);
        want.addAll(values("yes", 10));
        Collections.sort(want);
        check(read(c, 20, 0).equals(want), "what was committed");
        check(read(c, 0, 1000).isEmpty(), "what was aborted");
      }
      check(admin.listConsumerGroupOffsets(RUN + "-eos").partitionsToOffsetAndMetadata().get().get(new TopicPartition(topic, 0)).offset() == 5, "offsets of a transaction");
      Map<TopicPartition, RecordsToDelete> upTo = Map.of(new TopicPartition(topic, 0), RecordsToDelete.beforeOffset(3));
      check(admin.deleteRecords(upTo).lowWatermarks().get(new TopicPartition(topic, 0)).get().lowWatermark() == 3, "a new start");
      admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
      admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(RUN, new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret"))).all().get();
      check(admin.describeUserScramCredentials(List.of(RUN)).all().get().get(RUN).credentialInfos().size() == 1, "a SCRAM user");
      admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion(RUN, ScramMechanism.SCRAM_SHA_256))).all().get();
      fails(SecurityDisabledException.class, admin.describeAcls(AclBindingFilter.ANY).values());
      admin.deleteTopics(List.of(topic, tx)).all().get();
      System.out.println("admin, 5 codecs, both group protocols, transactions with fencing");
    }
    System.exit(0);
  }
}
