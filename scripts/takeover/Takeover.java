import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.SessionStore;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The applications of takeover_test.go, in Kafka Streams. Orders come line by line:
 *
 *   start APP TOPOLOGY STATE_DIR SLOW   runs an application; SLOW: milliseconds that each record takes to read
 *   stop APP                            closes it
 *
 * and are answered by "running APP", "stopped APP" and "failed APP: why". The end of the input ends the program.
 */
public class Takeover {
    static final Serde<String> TEXT = Serdes.String();
    static final Serde<Long> NUMBER = Serdes.Long();

    final String app;
    final String name;
    final Serde<String> slow;
    final StreamsBuilder builder = new StreamsBuilder();

    Takeover(final String app, final String name, final long millis) {
        this.app = app;
        this.name = name;
        this.slow = Serdes.serdeFrom(TEXT.serializer(), new Deserializer<>() {
            @Override
            public String deserialize(final String topic, final byte[] data) {
                if (millis > 0) {
                    try {
                        Thread.sleep(millis);
                    } catch (final InterruptedException e) {
                        throw new RuntimeException(e);
                    }
                }
                return TEXT.deserializer().deserialize(topic, data);
            }
        });
    }

    public static void main(final String[] args) throws Exception {
        final Map<String, KafkaStreams> running = new HashMap<>();
        final BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            final String[] order = line.split(" ");
            final String app = order[1];
            if (order[0].equals("stop")) {
                final KafkaStreams streams = running.remove(app);
                new Thread(() -> say(streams.close(Duration.ofSeconds(30)) ? "stopped " + app : "failed " + app + ": it does not stop")).start();
                continue;
            }
            final Takeover one = new Takeover(app, order[2], Long.parseLong(order[4]));
            final KafkaStreams streams = new KafkaStreams(one.built(), config(args[0], app, order[3], !order[4].equals("0")));
            streams.setUncaughtExceptionHandler(e -> {
                e.printStackTrace();
                say("failed " + app + ": " + e.toString().replace('\n', ' '));
                return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
            streams.setStateListener((now, before) -> {
                if (now == KafkaStreams.State.RUNNING) {
                    say("running " + app);
                }
            });
            running.put(app, streams);
            streams.start();
        }
        System.exit(0);
    }

    static void say(final String line) {
        synchronized (System.out) {
            System.out.println(line);
            System.out.flush();
        }
    }

    static Properties config(final String brokers, final String app, final String dir, final boolean doomed) {
        final Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, app);
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        p.put(StreamsConfig.STATE_DIR_CONFIG, dir);
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, 3000); // in which, on a machine with much else to do, one topic is read after the other
        p.put("auto.offset.reset", "earliest");
        // What these settings of Kafka Streams' own tests hold back for a second, by the clock, would come out in another order each time.
        p.put(StreamsConfig.InternalConfig.EMIT_INTERVAL_MS_KSTREAMS_WINDOWED_AGGREGATION, 0L);
        p.put(StreamsConfig.InternalConfig.EMIT_INTERVAL_MS_KSTREAMS_OUTER_JOIN_SPURIOUS_RESULTS_FIX, 0L);
        p.put("session.timeout.ms", 6000); // it does not leave the group when it is closed
        p.put("heartbeat.interval.ms", 1000);
        if (!doomed) { // what it leaves open when it is killed is to end soon; else it has time, on a machine with much else to do
            p.put("transaction.timeout.ms", 60_000);
        }
        return p;
    }

    KStream<String, String> stream(final String topic) {
        return builder.stream(topic, Consumed.with(TEXT, slow));
    }

    <K, V> void out(final KTable<K, V> table, final String topic, final Serde<K> key, final Serde<V> value) {
        table.toStream().to(app + "-" + topic, Produced.with(key, value));
    }

    static <V> Materialized<String, V, KeyValueStore<Bytes, byte[]>> store(final String name, final Serde<V> value) {
        return Materialized.<String, V, KeyValueStore<Bytes, byte[]>>as(name).withKeySerde(TEXT).withValueSerde(value);
    }

    static <V> Materialized<String, V, WindowStore<Bytes, byte[]>> windows(final String name, final Serde<V> value) {
        return Materialized.<String, V, WindowStore<Bytes, byte[]>>as(name).withKeySerde(TEXT).withValueSerde(value);
    }

    static <V> Materialized<String, V, SessionStore<Bytes, byte[]>> sessions(final String name, final Serde<V> value) {
        return Materialized.<String, V, SessionStore<Bytes, byte[]>>as(name).withKeySerde(TEXT).withValueSerde(value);
    }

    static Serde<Windowed<String>> within(final long millis) {
        return WindowedSerdes.timeWindowedSerdeFrom(String.class, millis);
    }

    static String first(final String text) {
        return text.substring(0, 1);
    }

    /** Adds to a text of at most 20 characters; what begins with an x takes all of it away. */
    static String add(final String text, final String more) {
        if (more.startsWith("x")) {
            return null;
        }
        final String all = text + more;
        return all.substring(Math.max(0, all.length() - 20));
    }

    static String pair(final String left, final String right) {
        return left + "+" + right;
    }

    void topology() {
        final String a = name + "-a";
        final String b = name + "-b";
        switch (name) {
            case "keyvalue": {
                final KStream<String, String> in = stream(a);
                out(in.groupByKey().aggregate(() -> "", (k, v, all) -> add(all, v), store("texts", TEXT)), "texts", TEXT, TEXT);
                out(in.groupBy((k, v) -> first(v), Grouped.with("by-letter", TEXT, TEXT)).count(store("letters", NUMBER)), "letters", TEXT, NUMBER);
                out(builder.table(b, Consumed.with(TEXT, slow), store("rows", TEXT))
                    .groupBy((k, v) -> KeyValue.pair(first(v), v), Grouped.with("by-owner", TEXT, TEXT))
                    .aggregate(() -> 0L, (k, v, n) -> n + v.length(), (k, v, n) -> n - v.length(), store("owners", NUMBER)), "owners", TEXT, NUMBER);
                break;
            }
            case "windows": {
                final KGroupedStream<String, String> in = stream(a).groupByKey();
                final TimeWindows tumbling = TimeWindows.ofSizeAndGrace(Duration.ofSeconds(10), Duration.ofSeconds(5));
                out(in.windowedBy(tumbling).count(windows("tumbling", NUMBER)), "tumbling", within(10_000), NUMBER);
                out(in.windowedBy(tumbling.advanceBy(Duration.ofSeconds(4))).aggregate(() -> "", (k, v, all) -> add(all, v), windows("hopping", TEXT)),
                    "hopping", within(10_000), TEXT);
                out(in.windowedBy(SlidingWindows.ofTimeDifferenceAndGrace(Duration.ofSeconds(5), Duration.ofSeconds(5))).count(windows("sliding", NUMBER)),
                    "sliding", within(5_000), NUMBER);
                out(in.windowedBy(tumbling).emitStrategy(EmitStrategy.onWindowClose()).count(windows("closed", NUMBER)), "closed", within(10_000), NUMBER);
                break;
            }
            case "sessions": {
                final KGroupedStream<String, String> in = stream(a).groupByKey();
                final SessionWindows gap = SessionWindows.ofInactivityGapAndGrace(Duration.ofSeconds(3), Duration.ofSeconds(5));
                out(in.windowedBy(gap).aggregate(() -> "", (k, v, all) -> add(all, v), (k, l, r) -> pair(l, r), sessions("sessions", TEXT)),
                    "sessions", WindowedSerdes.sessionWindowedSerdeFrom(String.class), TEXT);
                out(in.windowedBy(gap).emitStrategy(EmitStrategy.onWindowClose()).count(sessions("ended", NUMBER)),
                    "ended", WindowedSerdes.sessionWindowedSerdeFrom(String.class), NUMBER);
                break;
            }
            case "foreign": {
                final KTable<String, String> orders = builder.table(a, Consumed.with(TEXT, slow), store("orders", TEXT));
                final KTable<String, String> customers = builder.table(b, Consumed.with(TEXT, TEXT), store("customers", TEXT));
                out(orders.join(customers, (k, v) -> first(v), Takeover::pair, TableJoined.as("customer"), store("enriched", TEXT)), "enriched", TEXT, TEXT);
                out(orders.leftJoin(customers, (k, v) -> first(v), Takeover::pair, TableJoined.as("perhaps")), "perhaps", TEXT, TEXT);
                break;
            }
            case "suppress": {
                final KGroupedStream<String, String> in = stream(a).groupByKey();
                out(in.windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofSeconds(10), Duration.ofSeconds(5))).count(windows("counts", NUMBER))
                    .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()).withName("final")), "final", within(10_000), NUMBER);
                out(in.aggregate(() -> "", (k, v, all) -> add(all, v), store("texts", TEXT))
                    .suppress(Suppressed.untilTimeLimit(Duration.ofSeconds(7), Suppressed.BufferConfig.unbounded()).withName("held")), "held", TEXT, TEXT);
                break;
            }
            case "joins": {
                final KStream<String, String> left = stream(a);
                final KStream<String, String> right = stream(b);
                final JoinWindows near = JoinWindows.ofTimeDifferenceAndGrace(Duration.ofSeconds(5), Duration.ofSeconds(5));
                final StreamJoined<String, String, String> how = StreamJoined.with(TEXT, TEXT, TEXT);
                left.join(right, Takeover::pair, near, how.withStoreName("pairs")).to(app + "-pairs", Produced.with(TEXT, TEXT));
                left.leftJoin(right, Takeover::pair, near, how.withStoreName("left")).to(app + "-left", Produced.with(TEXT, TEXT));
                left.outerJoin(right, Takeover::pair, near, how.withStoreName("either")).to(app + "-either", Produced.with(TEXT, TEXT));
                out(left.toTable(store("one", TEXT)).outerJoin(right.toTable(store("other", TEXT)), Takeover::pair), "tables", TEXT, TEXT);
                break;
            }
            case "versioned": {
                final KTable<String, String> rows = builder.table(b, Consumed.with(TEXT, slow), Materialized.<String, String>as(
                    Stores.persistentVersionedKeyValueStore("history", Duration.ofSeconds(60))).withKeySerde(TEXT).withValueSerde(TEXT));
                builder.stream(a, Consumed.with(TEXT, TEXT)).leftJoin(rows, Takeover::pair,
                    Joined.with(TEXT, TEXT, TEXT, "waiting", Duration.ofSeconds(10))).to(app + "-then", Produced.with(TEXT, TEXT));
                break;
            }
            case "positional": { // nobody has named anything
                final KStream<String, String> in = stream(a);
                final Materialized<String, Long, KeyValueStore<Bytes, byte[]>> numbers = Materialized.with(TEXT, NUMBER);
                out(in.groupBy((k, v) -> first(v), Grouped.with(TEXT, TEXT)).count(numbers), "letters", TEXT, NUMBER);
                out(in.groupByKey().count(numbers)
                    .suppress(Suppressed.untilTimeLimit(Duration.ofSeconds(7), Suppressed.BufferConfig.unbounded())), "held", TEXT, NUMBER);
                in.outerJoin(in.mapValues(v -> v + v), Takeover::pair, JoinWindows.ofTimeDifferenceAndGrace(Duration.ofSeconds(5), Duration.ofSeconds(5)),
                    StreamJoined.with(TEXT, TEXT, TEXT)).to(app + "-pairs", Produced.with(TEXT, TEXT));
                out(in.toTable(Materialized.with(TEXT, TEXT)).leftJoin(builder.table(b, Consumed.with(TEXT, TEXT)), (k, v) -> first(v), Takeover::pair,
                    Materialized.with(TEXT, TEXT)), "enriched", TEXT, TEXT);
                break;
            }
            case "reuse": { // the second topic is the changelog of its table
                final KTable<String, String> rows = builder.table(b, Consumed.with(TEXT, slow), store("rows", TEXT));
                stream(a).leftJoin(rows, Takeover::pair, Joined.with(TEXT, TEXT, TEXT)).to(app + "-with", Produced.with(TEXT, TEXT));
                out(rows.mapValues(v -> (long) v.length()), "lengths", TEXT, NUMBER);
                out(rows.groupBy((k, v) -> KeyValue.pair(first(v), v), Grouped.with("by-owner", TEXT, TEXT))
                    .aggregate(() -> 0L, (k, v, n) -> n + v.length(), (k, v, n) -> n - v.length(), store("owners", NUMBER)), "owners", TEXT, NUMBER);
                break;
            }
            default:
                throw new IllegalArgumentException(name);
        }
    }

    Topology built() {
        topology();
        final Properties p = new Properties();
        if (name.equals("reuse")) {
            p.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.REUSE_KTABLE_SOURCE_TOPICS);
        }
        final Topology built = builder.build(p);
        if (System.getenv("TAKEOVER_DESCRIBE") != null) {
            System.err.println(built.describe());
        }
        return built;
    }
}
