import java.io.*;
import java.nio.file.Files;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import java.util.function.Function;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.Exit;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.tools.streams.StreamsGroupCommand;

/**
 * Kafka Streams with its own group protocol (KIP-1071): a word count with a repartition topic and a store in two instances, of which
 * one goes away, and what Kafka's administration and its command say of the group.
 */
public class Streams {
  static final String BOOTSTRAP = System.getenv("BOOTSTRAP"), RUN = System.getenv("RUN"), WORDS = RUN + "-words", COUNTS = RUN + "-counts";

  static void check(boolean ok, String what) {
    if (!ok) throw new AssertionError(what);
  }

  interface Ask<T> { T get() throws Exception; }

  /** Asks until the answer is good. A cluster may say for a while that there is no such thing. */
  static <T> T await(String what, Ask<T> ask, Function<T, Boolean> good) throws Exception {
    Object last = null;
    for (long until = System.currentTimeMillis() + 40_000; System.currentTimeMillis() < until; Thread.sleep(100))
      try {
        T got = ask.get();
        if (good.apply(got)) return got;
        last = got;
      } catch (ExecutionException e) {
        last = e;
      }
    throw new AssertionError(what + ": " + last);
  }

  static KafkaStreams start(int i) throws Exception {
    StreamsBuilder b = new StreamsBuilder();
    b.<String, String>stream(WORDS).flatMapValues(v -> List.of(v.split(" "))).groupBy((k, w) -> w).count(Materialized.as("count"))
      .toStream().to(COUNTS, Produced.with(Serdes.String(), Serdes.Long()));
    Properties p = new Properties();
    p.put(StreamsConfig.APPLICATION_ID_CONFIG, RUN);
    p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, BOOTSTRAP);
    p.put(StreamsConfig.GROUP_PROTOCOL_CONFIG, "streams");
    p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    p.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
    p.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
    p.put(StreamsConfig.APPLICATION_SERVER_CONFIG, "127.0.0.1:" + (7000 + i));
    p.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("streams").toString());
    KafkaStreams s = new KafkaStreams(b.build(), p);
    s.start();
    return s;
  }

  static void say(int times) throws Exception {
    Properties p = new Properties();
    p.put("bootstrap.servers", BOOTSTRAP);
    try (var producer = new KafkaProducer<>(p, new StringSerializer(), new StringSerializer())) {
      for (int i = 0; i < times; i++) producer.send(new ProducerRecord<>(WORDS, "k" + i, "one two w" + i % 7)).get();
    }
  }

  /** The last counts, when the counted words are as many as were said. */
  static void counted(int times) throws Exception {
    Properties p = new Properties();
    p.putAll(Map.of("bootstrap.servers", BOOTSTRAP, "group.id", RUN + "-reader-" + times, "auto.offset.reset", "earliest", "isolation.level", "read_committed"));
    Map<String, Long> counts = new HashMap<>();
    try (var c = new KafkaConsumer<>(p, new StringDeserializer(), new LongDeserializer())) {
      c.subscribe(List.of(COUNTS));
      await("counts", () -> {
        for (ConsumerRecord<String, Long> r : c.poll(Duration.ofMillis(100))) counts.put(r.key(), r.value());
        return counts;
      }, m -> m.values().stream().mapToLong(n -> n).sum() >= 3L * times);
    }
    check(counts.get("one") == times && counts.get("two") == times && counts.size() == 9, "counts " + counts);
  }

  static int tasks(List<StreamsGroupMemberAssignment.TaskIds> ids) { return ids.stream().mapToInt(t -> t.partitions().size()).sum(); }

  static int sum(StreamsGroupDescription d, Function<StreamsGroupMemberAssignment, List<StreamsGroupMemberAssignment.TaskIds>> role) {
    return d.members().stream().mapToInt(m -> tasks(role.apply(m.assignment()))).sum();
  }

  /** What Kafka's command writes. */
  static String command(String... args) {
    PrintStream out = System.out;
    ByteArrayOutputStream got = new ByteArrayOutputStream();
    System.setOut(new PrintStream(got, true));
    try {
      List<String> all = new ArrayList<>(List.of("--bootstrap-server", BOOTSTRAP));
      all.addAll(List.of(args));
      StreamsGroupCommand.main(all.toArray(String[]::new));
    } finally {
      System.setOut(out);
    }
    return got.toString();
  }

  public static void main(String[] args) throws Exception {
    Exit.setExitProcedure((code, message) -> check(code == 0, "exit " + code + ": " + message));
    KafkaStreams one = null, two = null;
    try (Admin admin = Admin.create(Map.of("bootstrap.servers", BOOTSTRAP))) {
      var features = admin.describeFeatures().featureMetadata().get().finalizedFeatures();
      check(features.get("streams.version").maxVersionLevel() == 1, "features " + features);
      admin.createTopics(List.of(new NewTopic(WORDS, 2, (short) 1), new NewTopic(COUNTS, 2, (short) 1))).all().get();
      var group = new ConfigResource(ConfigResource.Type.GROUP, RUN);
      admin.incrementalAlterConfigs(Map.of(group, List.of(new AlterConfigOp(new ConfigEntry("streams.heartbeat.interval.ms", "500"), AlterConfigOp.OpType.SET),
        new AlterConfigOp(new ConfigEntry("streams.num.standby.replicas", "1"), AlterConfigOp.OpType.SET)))).all().get();
      await("the group's settings", () -> admin.describeConfigs(List.of(group)).all().get().get(group).get("streams.heartbeat.interval.ms").value(), "500"::equals);
      one = start(1);
      two = start(2);
      say(50);
      Ask<StreamsGroupDescription> describe = () -> admin.describeStreamsGroups(List.of(RUN), new DescribeStreamsGroupsOptions().includeAuthorizedOperations(true)).all().get().get(RUN);
      var both = await("two members", describe, d -> d.groupState() == GroupState.STABLE && d.members().size() == 2 && sum(d, StreamsGroupMemberAssignment::activeTasks) == 4);
      check(sum(both, StreamsGroupMemberAssignment::standbyTasks) == 2, "standbys " + both.members());
      check(both.members().stream().allMatch(m -> tasks(m.assignment().activeTasks()) == 2), "shares " + both.members());
      check(both.subtopologies().size() == 2, "subtopologies " + both.members());
      counted(50);
      KafkaStreams s = one;
      await("endpoints", s::metadataForAllStreamsClients, all -> all.size() == 2);
      check(admin.listGroups(ListGroupsOptions.forStreamsGroups()).all().get().stream().anyMatch(g -> g.groupId().equals(RUN)), "listed");
      check(command("--list").contains(RUN), "listed by the command");
      check(command("--list", "--state", "Stable").contains(RUN), "listed by its state");
      check(command("--describe", "--group", RUN).contains(WORDS), "described with offsets");
      check(command("--describe", "--members", "--group", RUN).contains("StreamThread"), "described with members");
      try {
        admin.deleteStreamsGroups(List.of(RUN)).all().get();
        throw new AssertionError("deleted with members");
      } catch (ExecutionException e) {
        check(e.getCause() instanceof GroupNotEmptyException, "deleted with members: " + e);
      }

      var leave = new KafkaStreams.CloseOptions().leaveGroup(true).timeout(Duration.ofSeconds(20));
      check(two.close(leave), "the second instance closes");
      await("one member", describe, d -> d.groupState() == GroupState.STABLE && d.members().size() == 1 && sum(d, StreamsGroupMemberAssignment::activeTasks) == 4);
      say(50);
      counted(100);
      check(one.close(leave), "the first instance closes");
      await("no members", describe, d -> d.groupState() == GroupState.EMPTY);
      check(admin.listStreamsGroupOffsets(Map.of(RUN, new ListStreamsGroupOffsetsSpec())).partitionsToOffsetAndMetadata(RUN).get().keySet().stream()
        .anyMatch(p -> p.topic().equals(WORDS)), "offsets");
      check(command("--delete", "--group", RUN).contains("successful"), "deleted by the command");
      check(!command("--list").contains(RUN), "still listed");
    } finally {
      for (KafkaStreams s : Arrays.asList(one, two)) if (s != null) s.close(Duration.ofSeconds(5));
    }
    System.out.println("streams protocol: two instances, standbys, endpoints, a hand-over, administration, the command");
    System.exit(0);
  }
}
