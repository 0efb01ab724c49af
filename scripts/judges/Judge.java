import java.time.*;
import java.util.*;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.tests.*;

/**
 * Kafka Streams' own system tests (classes of its test jar) as commands of a process; internal/judges runs it.
 *
 *   Judge BROKERS smoke judge EOS KEYS RECORDS SECONDS        RECORDS of each key
 *   Judge BROKERS relational judge EOS ARTICLES COMMENTS SECONDS
 *   Judge BROKERS TOPOLOGY application EOS STATE_DIR PROTOCOL Java's application, until it is stopped; its group is classic or streams
 *
 * EOS is true or false. A judge makes the topics, says "topics", waits for a line of input, says "produce", writes the
 * input over SECONDS, says "produced", and in the end "verdict:" and one of passed, counted-twice, failed. The second is
 * for at least once: nothing is missing or wrong but counts that are too high.
 */
public class Judge {
  static final Duration SESSION = Duration.ofSeconds(6);
  static final Duration PATIENCE = Duration.ofSeconds(90);

  public static void main(String[] a) throws Exception {
    String brokers = a[0];
    boolean smoke = a[1].equals("smoke"), eos = Boolean.parseBoolean(a[3]);
    if (a[2].equals("application")) {
      application(brokers, smoke, eos, a[4], a[5]);
      return;
    }
    int first = Integer.parseInt(a[4]), second = Integer.parseInt(a[5]);
    Duration spread = Duration.ofSeconds(Integer.parseInt(a[6]));
    topics(brokers, smoke ? SmokeTestDriver.topics() : RelationalSmokeTest.topics());
    group(brokers, smoke ? "SmokeTest" : "RelationalSmokeTest");
    System.out.println("topics");
    System.in.read();
    System.out.println("produce");
    String verdict = smoke ? smoke(brokers, eos, first, second, spread) : relational(brokers, eos, first, second, spread);
    System.out.println("verdict: " + verdict);
    System.exit(0);
  }

  /** An admin client that is patient: on a busy machine its first connection may take longer than the minute that it has by default. */
  static Admin admin(String brokers) {
    return Admin.create(Map.of("bootstrap.servers", brokers, "default.api.timeout.ms", 300_000));
  }

  /** Topics with as many partitions as in Kafka's own runs. */
  static void topics(String brokers, String[] names) throws Exception {
    try (Admin admin = admin(brokers)) {
      admin.createTopics(Arrays.stream(names).map(t -> new NewTopic(t, t.endsWith("article") ? 3 : 5, (short) 1)).toList()).all().get();
    }
  }

  /** What members of a streams group are held to is the group's setting, not theirs. */
  static void group(String brokers, String id) throws Exception {
    try (Admin admin = admin(brokers)) {
      var group = new ConfigResource(ConfigResource.Type.GROUP, id);
      var set = Map.of("streams.session.timeout.ms", SESSION.toMillis(), "streams.heartbeat.interval.ms", SESSION.dividedBy(6).toMillis(), "streams.num.standby.replicas", 1L);
      admin.incrementalAlterConfigs(Map.of(group, set.entrySet().stream().map(e ->
        new AlterConfigOp(new ConfigEntry(e.getKey(), e.getValue().toString()), AlterConfigOp.OpType.SET)).toList())).all().get();
    }
  }

  /**
   * The driver compares the end of what is committed with the end that it has asked for a moment before, and refuses if the
   * former is larger: of course it is while the application is still at work. Then it is asked again.
   */
  static String smoke(String brokers, boolean eos, int keys, int records, Duration spread) throws Exception {
    Map<String, Set<Integer>> written = SmokeTestDriver.generate(brokers, keys, records, spread);
    System.out.println("produced");
    for (Instant until = Instant.now().plus(PATIENCE); ; Thread.sleep(1000)) {
      var result = SmokeTestDriver.verify(brokers, written, records, eos);
      if (result.passed()) return "passed";
      if (!result.result().startsWith("Offset for partition") || Instant.now().isAfter(until)) return "failed";
    }
  }

  static String relational(String brokers, boolean eos, int articles, int comments, Duration spread) throws Exception {
    RelationalSmokeTest.DataSet written = RelationalSmokeTest.DataSet.generate(articles, comments);
    written.produce(brokers, spread);
    System.out.println("produced");
    // Counts that are too high never come right, so at least once is not waited for as long.
    if (RelationalSmokeTest.App.verifySync(brokers, Instant.now().plus(eos ? PATIENCE : PATIENCE.dividedBy(4)))) return "passed";
    return !eos && nothingMissing(brokers, written) ? "counted-twice" : "failed";
  }

  /** Whether every comment has come out with its article's beginning, and every article with at least its comments. */
  static boolean nothingMissing(String brokers, RelationalSmokeTest.DataSet written) {
    Map<Integer, String> texts = new HashMap<>();
    Map<Integer, Long> due = new HashMap<>();
    for (RelationalSmokeTest.Article x : written.getArticles()) texts.put(x.getKey(), x.getText());
    for (RelationalSmokeTest.Comment x : written.getComments()) due.merge(x.getArticleId(), 1L, Long::sum);
    var articles = new RelationalSmokeTest.AugmentedArticle.AugmentedArticleDeserializer();
    var comments = new RelationalSmokeTest.AugmentedComment.AugmentedCommentDeserializer();
    Map<Integer, Long> counted = new HashMap<>();
    Map<Integer, String> prefixed = new HashMap<>();
    String[] names = {"out-augmented-article", "out-augmented-comment"};
    Map<String, Object> settings = Map.of("bootstrap.servers", brokers, "isolation.level", "read_committed");
    try (var c = new KafkaConsumer<>(settings, new IntegerDeserializer(), new ByteArrayDeserializer())) {
      List<TopicPartition> all = Stream.of(names).flatMap(t -> c.partitionsFor(t).stream()).map(p -> new TopicPartition(p.topic(), p.partition())).toList();
      c.assign(all);
      c.seekToBeginning(all);
      Map<TopicPartition, Long> ends = c.endOffsets(all);
      while (all.stream().anyMatch(p -> c.position(p) < ends.get(p)))
        for (ConsumerRecord<Integer, byte[]> r : c.poll(Duration.ofSeconds(1)))
          if (r.topic().equals(names[0])) counted.put(r.key(), articles.deserialize("", r.value()).getCommentCount());
          else prefixed.put(r.key(), comments.deserialize("", r.value()).getArticlePrefix());
    }
    for (RelationalSmokeTest.Comment x : written.getComments()) {
      String prefix = prefixed.get(x.getKey());
      if (prefix == null || !texts.get(x.getArticleId()).startsWith(prefix)) return false;
    }
    return texts.keySet().stream().allMatch(k -> counted.getOrDefault(k, -1L) >= due.getOrDefault(k, 0L));
  }

  /** A process that is killed leaves no group, so the others must not wait long for it. */
  static void application(String brokers, boolean smoke, boolean eos, String dir, String protocol) throws Exception {
    String guarantee = eos ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE;
    Properties p = smoke ? new Properties() : RelationalSmokeTest.App.getConfig(brokers, "RelationalSmokeTest", UUID.randomUUID().toString(), guarantee, protocol, dir);
    p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
    p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, guarantee);
    p.put(StreamsConfig.STATE_DIR_CONFIG, dir);
    p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
    p.put(StreamsConfig.GROUP_PROTOCOL_CONFIG, protocol);
    if (protocol.equals("classic")) {
      p.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), (int) SESSION.toMillis());
      p.put(StreamsConfig.consumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG), (int) SESSION.dividedBy(3).toMillis());
    }
    if (smoke) {
      new SmokeTestClient(UUID.randomUUID().toString()).start(p);
      Thread.currentThread().join();
    }
    KafkaStreams streams = new KafkaStreams(RelationalSmokeTest.App.getTopology(), p);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
    streams.start();
    Thread.currentThread().join();
  }
}
