package moldau_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/stream"
)

// Settings of TestTakeover: a broker of Apache Kafka, the class path of scripts/takeover/Takeover.java, and, if not all of them,
// the topologies.
const (
	takeoverKafka      = "MOLDAU_KAFKA"
	takeoverClasses    = "MOLDAU_TAKEOVER"
	takeoverTopologies = "MOLDAU_TOPOLOGIES"
)

// ways are who runs an application while each third of the input is processed: J is Kafka Streams, G is Moldau; K is Kafka Streams, which is
// killed before it is done, and Moldau does the rest. The first is what the others are compared with: nobody stops there.
var ways = []string{"JJJ", "JGJ", "GJG", "KGG"}

// TestTakeover has Kafka Streams and Moldau take over applications from each other, on Apache Kafka: their topics, changelogs and
// committed positions. What comes out must be what Kafka Streams alone puts out, and so must be what lies in the changelogs.
func TestTakeover(t *testing.T) {
	brokers, classes := os.Getenv(takeoverKafka), os.Getenv(takeoverClasses)
	if brokers == "" || classes == "" {
		t.Skip("make takeover runs this beside Apache Kafka and Kafka Streams")
	}
	h := &handover{t: t, brokers: brokers, dir: t.TempDir(), random: rand.New(rand.NewPCG(7, 7)), now: time.Now().Add(-time.Hour).Truncate(time.Minute)}
	h.cl = h.client(kgo.ProducerBatchMaxBytes(10 << 20))
	h.admin = kadm.NewClient(h.cl)
	h.java, h.doomed = runJava(t, brokers, classes), runJava(t, brokers, classes)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ours says:\n%s", h.log.String())
		}
	})
	for _, topology := range takeovers {
		if only := os.Getenv(takeoverTopologies); only != "" && !slices.Contains(strings.Split(only, ","), topology.name) {
			continue
		}
		for _, topic := range []string{topology.name + "-a", topology.name + "-b"} {
			createTopic(t, h.cl, topic, takeoverPartitions)
		}
		for _, way := range ways {
			a := &handed{takeover: topology, way: way, app: "takeover-" + topology.name + "-" + way}
			for _, out := range slices.Concat(topology.ordered, topology.final) {
				createTopic(t, h.cl, a.app+"-"+out, takeoverPartitions)
			}
			h.apps = append(h.apps, a)
		}
	}
	for third := range len(ways[0]) {
		h.change(third)
		began := time.Now()
		h.quiet()
		t.Logf("third %d is processed after %v", third+1, time.Since(began).Round(time.Millisecond))
	}
	h.stop(len(ways[0]))
	t.Logf("%d applications of %d topologies, each run by Kafka Streams alone and in the ways %v", len(h.apps), len(h.topologies()), ways[1:])
	for _, a := range h.apps {
		if a.way != ways[0] {
			t.Run(a.takeover.name+"/"+a.way, func(t *testing.T) { h.compare(t, a) })
		}
	}
}

const (
	takeoverPartitions = 2
	takeoverPatience   = 3 * time.Minute // with a machine that has much else to do
)

// handover is the test at work.
type handover struct {
	t       *testing.T
	brokers string
	dir     string
	random  *rand.Rand
	now     time.Time // of the input
	cl      *kgo.Client
	admin   *kadm.Client
	java    *javaStreams
	doomed  *javaStreams // it is killed
	log     lockedBuffer // of ours
	apps    []*handed
}

// handed is an application, and who runs it.
type handed struct {
	takeover takeover
	way, app string
	ours     *runs // nil: Java's, or nobody's
}

func (h *handover) client(opts ...kgo.Opt) *kgo.Client {
	h.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(h.brokers))...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(cl.Close)
	return cl
}

func (h *handover) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	h.t.Cleanup(cancel)
	return ctx
}

// change has the applications processed by whom the third says, and writes its input while those that change hands are stopped.
func (h *handover) change(third int) {
	h.stop(third)
	h.feed(third > 0)
	var killed []*handed
	for _, a := range h.apps {
		if third > 0 && a.way[third-1] == a.way[third] {
			continue
		}
		switch a.way[third] {
		case 'J':
			h.java.order("start", a.app, a.takeover.name, filepath.Join(h.dir, a.app+"-java"), "0")
		case 'K':
			h.doomed.order("start", a.app, a.takeover.name, filepath.Join(h.dir, a.app+"-java"), "20")
			killed = append(killed, a)
		default:
			h.start(a)
		}
	}
	for _, a := range killed {
		h.doomed.wait("running " + a.app)
	}
	if len(killed) > 0 {
		for end := time.Now().Add(takeoverPatience); slices.ContainsFunc(killed, func(a *handed) bool { return h.committed(a) == 0 }); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				h.t.Fatal("not all that are to be killed have committed something")
			}
		}
		h.doomed.cmd.Process.Kill()
	}
	for _, a := range killed {
		h.t.Logf("%s is killed when it has committed %d records", a.app, h.committed(a))
		h.start(a)
	}
}

// committed is how much of its input an application has committed.
func (h *handover) committed(a *handed) (n int64) {
	offsets, err := h.admin.FetchOffsets(h.context(), a.app)
	if err != nil { // offsets of a transaction that is open: it will not be long
		return 0
	}
	offsets.Each(func(o kadm.OffsetResponse) {
		if strings.HasPrefix(o.Topic, a.takeover.name) {
			n += o.At
		}
	})
	return n
}

// start begins or goes on with an application in this process.
func (h *handover) start(a *handed) {
	topology := build(h.t, func(b *stream.Builder) {
		a.takeover.build(b, takeoverTopics{app: a.app, a: a.takeover.name + "-a", b: a.takeover.name + "-b"})
	})
	app, err := moldau.New(a.app, topology, moldau.Config{Brokers: []string{h.brokers}, StateDir: filepath.Join(h.dir, a.app), ReplicationFactor: 1,
		Workers: 1, MaxTaskIdle: time.Second, SessionTimeout: 6 * time.Second, Logger: slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ours := &runs{App: app, t: h.t, stop: stop, done: make(chan error, 1)}
	go func() { ours.done <- app.Run(ctx) }() // it need not be ready: it may have to wait until Java's session has ended
	h.t.Cleanup(func() { ours.end() })
	a.ours = ours
}

// stop closes the applications that somebody else runs from that third on.
func (h *handover) stop(third int) {
	var java []string
	for _, a := range h.apps {
		switch {
		case third == 0 || third < len(a.way) && a.way[third-1] == a.way[third]:
		case a.ours != nil:
			if err := a.ours.end(); err != nil {
				h.t.Fatalf("%s: %v", a.app, err)
			}
			a.ours = nil
		default:
			h.java.order("stop", a.app)
			java = append(java, a.app)
		}
	}
	for _, app := range java {
		h.java.wait("stopped " + app)
	}
}

// feed writes a third of the input: first a record for each key in the order of time, so that everybody knows what time it is however
// freshly started, then others, with late ones and with some that are too late. Where somebody is killed, at any record, none are late: what
// time it is he has not handed on.
func (h *handover) feed(late bool) {
	var records []*kgo.Record
	add := func(topic, key, value string, null bool, at time.Time) {
		r := kgo.KeyStringRecord(key, value)
		if null {
			r.Value = nil
		}
		r.Topic, r.Timestamp = topic, at
		r.Headers = []kgo.RecordHeader{{Key: "n", Value: fmt.Append(nil, len(records))}}
		records = append(records, r)
	}
	for _, topology := range h.topologies() {
		one := func(side string, key string, inTime bool) {
			at, null := h.now, false
			if !inTime {
				if late && h.random.IntN(4) == 0 {
					at = at.Add(-time.Duration(h.random.IntN(18000)) * time.Millisecond)
				}
				null = topology == "keyvalue" && side == "b" || topology == "versioned" && side == "b" || topology == "foreign" && side == "a"
				null = null && h.random.IntN(8) == 0
			}
			if at = at.Truncate(2 * time.Millisecond); side == "b" { // no record of either has the time of one of the other: nothing says which comes first
				at = at.Add(time.Millisecond)
			}
			value := string("abcdefx"[h.random.IntN(7)]) + fmt.Sprint(h.random.IntN(100))
			if side == "b" && (topology == "foreign" || topology == "positional") {
				key = "abcde"[int(key[1]-'0')%5:][:1]
			}
			add(topology+"-"+side, key, value, null, at)
		}
		h.now = h.now.Add(time.Second)
		for i := range 8 {
			one("a", fmt.Sprint("k", i), true)
			one("b", fmt.Sprint("k", i), true)
		}
		if topology == "foreign" { // a row that changes twice at once may stay in the result of an inner join, in Java as here
			for i := range 60 {
				one("a", fmt.Sprint("k", i+8), false)
			}
			continue
		}
		for range 120 {
			h.now = h.now.Add(time.Duration(h.random.IntN(1000)) * time.Millisecond)
			one(string("ab"[h.random.IntN(2)]), fmt.Sprint("k", h.random.IntN(8)), false)
		}
	}
	if err := h.cl.ProduceSync(h.context(), records...).FirstErr(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *handover) topologies() (names []string) {
	for _, a := range h.apps {
		if a.way == ways[0] {
			names = append(names, a.takeover.name)
		}
	}
	return names
}

// quiet waits until all applications have processed and committed all there is.
func (h *handover) quiet() {
	h.t.Helper()
	busy := ""
	end := time.Now().Add(takeoverPatience)
	for left := h.apps; len(left) > 0; {
		if a := left[0]; h.idle(a, &busy) {
			left = left[1:]
			continue
		}
		h.java.failed()
		if a := left[0]; a.ours != nil {
			select {
			case err := <-a.ours.done:
				a.ours.done = nil
				h.t.Fatalf("%s has stopped: %v", a.app, err)
			default:
			}
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s is not done in time: %s", left[0].app, busy)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// idle says whether an application has read and committed all of its input, and of its own topics. Read from left to right: what
// was written into one of those has been committed before.
func (h *handover) idle(a *handed, why *string) bool {
	for range 2 {
		topics, err := h.admin.ListTopics(h.context())
		if err != nil {
			h.t.Fatal(err)
		}
		names := []string{a.takeover.name + "-a", a.takeover.name + "-b"}
		for _, name := range topics.Names() {
			if strings.HasPrefix(name, a.app+"-") && (strings.HasSuffix(name, "-repartition") || strings.HasSuffix(name, "-topic")) {
				names = append(names, name)
			}
		}
		committed, err := h.admin.FetchOffsets(h.context(), a.app)
		if err != nil {
			*why = err.Error()
			return false
		}
		starts, err := h.admin.ListStartOffsets(h.context(), names...)
		if err != nil {
			h.t.Fatal(err)
		}
		ends, err := h.admin.ListCommittedOffsets(h.context(), names...)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, name := range names {
			for partition, end := range ends[name] {
				if name == "windows-b" || name == "sessions-b" || name == "suppress-b" {
					continue // nobody reads it
				}
				at := starts[name][partition].Offset // what has been read of a repartition topic is deleted
				if o, ok := committed.Lookup(name, partition); ok {
					at = max(at, o.At)
				}
				if at < end.Offset && h.unread(name, partition, at, end.Offset) {
					*why = fmt.Sprintf("%s[%d]: %d of %d", name, partition, at, end.Offset)
					return false
				}
			}
		}
	}
	return true
}

// unread says whether there is a record between two offsets, and not only the markers of transactions.
func (h *handover) unread(topic string, partition int32, from, to int64) bool {
	ctx := h.context()
	cl := h.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}))
	defer cl.Close()
	for {
		for _, r := range cl.PollFetches(ctx).Records() {
			if !r.Attrs.IsControl() {
				return r.Offset < to
			}
			if r.Offset+1 >= to {
				return false
			}
		}
		if ctx.Err() != nil {
			h.t.Fatalf("%s[%d] cannot be read from %d to %d", topic, partition, from, to)
		}
	}
}

// read gives a topic's committed records by partition.
func (h *handover) read(topics ...string) map[string][][]*kgo.Record {
	ctx := h.context()
	ends, err := h.admin.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		h.t.Fatal(err)
	}
	all, left := map[string][][]*kgo.Record{}, 0
	from := map[string]map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if all[o.Topic] == nil {
			all[o.Topic], from[o.Topic] = make([][]*kgo.Record, takeoverPartitions), map[int32]kgo.Offset{}
		}
		if o.Offset > 0 {
			from[o.Topic][o.Partition] = kgo.NewOffset().AtStart()
			left++
		}
	})
	if left == 0 {
		return all
	}
	cl := h.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumePartitions(from))
	defer cl.Close()
	for left > 0 {
		for _, r := range cl.PollFetches(ctx).Records() {
			if !r.Attrs.IsControl() {
				all[r.Topic][r.Partition] = append(all[r.Topic][r.Partition], r)
			}
			if end, _ := ends.Lookup(r.Topic, r.Partition); r.Offset+1 == end.Offset {
				left--
			}
		}
		if ctx.Err() != nil {
			h.t.Fatalf("%v cannot be read to their ends", topics)
		}
	}
	return all
}

// compare holds the results of an application, and its changelogs, against those of the one that Java has run alone.
func (h *handover) compare(t *testing.T, a *handed) {
	alone := "takeover-" + a.takeover.name + "-" + ways[0]
	var topics []string
	for _, out := range slices.Concat(a.takeover.ordered, a.takeover.final) {
		topics = append(topics, alone+"-"+out, a.app+"-"+out)
	}
	there, err := h.admin.ListTopics(h.context())
	if err != nil {
		t.Fatal(err)
	}
	var changelogs []string
	for _, name := range there.Names() {
		for _, app := range []string{alone, a.app} {
			if store, ok := strings.CutPrefix(name, app+"-"); ok && strings.HasSuffix(name, "-changelog") {
				topics = append(topics, name)
				if !slices.Contains(changelogs, store) {
					changelogs = append(changelogs, store)
				}
			}
		}
	}
	records := h.read(topics...)
	for _, out := range a.takeover.ordered {
		if strings.Contains(a.way[1:], "J") && slices.Contains(a.takeover.restarted, out) {
			continue
		}
		n := 0
		for p := range takeoverPartitions {
			// Whoever is killed forgets how late it was. Records that wait for it to get late, in outer joins, are then let go of by other
			// ones, whose headers they have, and among others.
			waits := a.way[0] == 'K' && a.takeover.name == "joins"
			got, want := lines(records[a.app+"-"+out][p], !waits), lines(records[alone+"-"+out][p], !waits)
			if waits {
				slices.Sort(got)
				slices.Sort(want)
			}
			n += len(want)
			for i := range max(len(got), len(want)) {
				if i >= len(got) || i >= len(want) || got[i] != want[i] {
					t.Errorf("%s[%d]: record %d of %d (there are %d):\n  got  %s\n  want %s", out, p, i, len(want), len(got), at(got, i), at(want, i))
					break
				}
			}
		}
		t.Logf("%s: %d records", out, n)
		if n == 0 {
			t.Errorf("%s is empty", out)
		}
	}
	for _, out := range a.takeover.final {
		want := last(records[alone+"-"+out], false)
		same(t, out, last(records[a.app+"-"+out], false), want)
	}
	for _, changelog := range changelogs {
		if slices.ContainsFunc(a.takeover.counted, func(s string) bool { return strings.Contains(changelog, s) }) {
			continue
		}
		times := len(a.takeover.final) == 0
		same(t, changelog, last(records[a.app+"-"+changelog], times), last(records[alone+"-"+changelog], times))
	}
}

func at(lines []string, i int) string {
	if i >= len(lines) {
		return "nothing"
	}
	return lines[i]
}

func lines(records []*kgo.Record, headers bool) (all []string) {
	for _, r := range records {
		one := line(r, true)
		if !headers {
			one, _, _ = strings.Cut(one, " n:")
		}
		all = append(all, one)
	}
	return all
}

func line(r *kgo.Record, time bool) string {
	s := fmt.Sprintf("%q=%q", r.Key, r.Value)
	if r.Value == nil {
		s = fmt.Sprintf("%q=null", r.Key)
	}
	if time {
		s += fmt.Sprintf(" @%d", r.Timestamp.UnixMilli())
		for _, one := range r.Headers {
			s += fmt.Sprintf(" %s:%q", one.Key, one.Value)
		}
	}
	return s
}

// last are the last records of the keys that are there.
func last(partitions [][]*kgo.Record, time bool) map[string]string {
	m := map[string]string{}
	for p, records := range partitions {
		for _, r := range records {
			key := fmt.Sprintf("%d %s", p, r.Key)
			// The changelog of a suppression buffer, which says its format, has the clock's time in Java.
			buffer := len(r.Headers) == 1 && r.Headers[0].Key == "v"
			if m[key] = line(r, time && !buffer); r.Value == nil {
				delete(m, key)
			}
		}
	}
	return m
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Logf("%s: %d keys", what, len(want))
	shown := 0
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] && shown < 3 {
			t.Errorf("%s:\n  got  %s\n  want %s", what, got[key], want[key])
			shown++
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok && shown < 3 {
			t.Errorf("%s:\n  got  %s\n  want nothing", what, got[key])
			shown++
		}
	}
}

// lockedBuffer is written by many.
type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// javaStreams is a running Takeover.java.
type javaStreams struct {
	t   *testing.T
	in  io.Writer
	cmd *exec.Cmd
	log lockedBuffer

	mu   sync.Mutex
	said []string
}

func runJava(t *testing.T, brokers, classes string) *javaStreams {
	j := &javaStreams{t: t, cmd: exec.Command("java", "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classes, "Takeover", brokers)}
	j.cmd.Stderr = &j.log
	in, err := j.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := j.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := j.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			j.mu.Lock()
			j.said = append(j.said, s.Text())
			j.mu.Unlock()
		}
	}()
	j.in = in
	t.Cleanup(func() {
		j.cmd.Process.Kill()
		<-read
		j.cmd.Wait()
		if said := j.log.String(); t.Failed() && said != "" {
			t.Logf("Java says:\n%s", said[max(0, len(said)-20000):])
		}
	})
	return j
}

func (j *javaStreams) order(words ...string) {
	j.t.Helper()
	if _, err := fmt.Fprintln(j.in, strings.Join(words, " ")); err != nil {
		j.t.Fatal(err)
	}
}

// failed ends the test if one of the applications has failed.
func (j *javaStreams) failed() {
	j.t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.said {
		if strings.HasPrefix(line, "failed ") {
			j.t.Fatal(line)
		}
	}
}

// wait waits for a line.
func (j *javaStreams) wait(line string) {
	j.t.Helper()
	for end := time.Now().Add(takeoverPatience); ; time.Sleep(10 * time.Millisecond) {
		j.failed()
		j.mu.Lock()
		i := slices.Index(j.said, line)
		if i >= 0 {
			j.said = slices.Delete(j.said, i, i+1)
		}
		j.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(end) {
			j.t.Fatalf("not in time: %q", line)
		}
	}
}
