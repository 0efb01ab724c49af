package moldau_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/stream"
)

// childEnv makes the test's binary an application that runs until it is killed.
const childEnv = "MOLDAU_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

// child runs the word count, or another topology, with what its environment says, until SIGTERM or SIGKILL.
func child() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if os.Getenv(childEnv) == "takeover" {
		takeoverChild(ctx)
		return
	}
	b := stream.NewBuilder()
	switch os.Getenv("MOLDAU_TEST_TOPOLOGY") {
	case "visits":
		visiting(b)
	default:
		slowly(b)
	}
	topo, err := b.Build()
	if err != nil {
		panic(err)
	}
	cfg := moldau.Config{StateDir: os.Getenv("MOLDAU_TEST_STATE"), CommitInterval: 20 * time.Millisecond, SessionTimeout: 6 * time.Second,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if a := os.Getenv("MOLDAU_TEST_BROKERS"); a != "" {
		cfg.Brokers = []string{a}
	}
	if os.Getenv("MOLDAU_TEST_GUARANTEE") == "at-least-once" {
		cfg.Guarantee = moldau.AtLeastOnce
	}
	app, err := moldau.New("words", topo, cfg)
	if err == nil {
		err = app.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// slowly is the word count at a pace that leaves work for every life of the application.
func slowly(b *stream.Builder) {
	var n atomic.Int64
	b.Stream(Lines).
		FlatMapValues(func(line string) []string {
			if n.Add(1)%8 == 0 {
				time.Sleep(time.Millisecond)
			}
			return strings.Fields(line)
		}).
		GroupBy(ByWord, func(_ []byte, word string) string { return word }).
		Count(Counts).
		ToStream().
		To(Totals)
}

// long skips a test that takes seconds when time is short.
func long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
}

// spawn starts a child; its log goes to the file.
func spawn(t testing.TB, log string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childEnv+"=1"), env...)
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// server is a broker in this process, with a port.
func server(t testing.TB, dir string) *broker.Broker {
	t.Helper()
	b, err := broker.Start(context.Background(), broker.Config{Dir: dir, Listeners: []broker.Listener{{Address: "127.0.0.1:0"}}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// address is where tests of several processes find their broker: a bundled one in this process, or the cluster that
// MOLDAU_KAFKA names, cleared of what earlier runs left.
func address(t testing.TB, dir string) string {
	t.Helper()
	addr := os.Getenv("MOLDAU_KAFKA")
	if addr == "" {
		b := server(t, dir)
		t.Cleanup(func() { b.Close() })
		return b.Addr()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	admin := kadm.NewClient(cl)
	for _, topic := range []string{"lines", "totals", "words-by-word-repartition", "words-counts-changelog"} {
		admin.DeleteTopic(ctx, topic)
	}
	admin.DeleteGroup(ctx, "words")
	eventually(t, "the topics are gone", func() bool {
		d, err := admin.ListTopics(ctx)
		return err == nil && !d.Has("lines") && !d.Has("totals") && !d.Has("words-by-word-repartition") && !d.Has("words-counts-changelog")
	})
	return addr
}

// workload is text of so many lines, and how often each word is in it.
func workload(r *rand.Rand, lines int) (text []string, want map[string]int64) {
	want = map[string]int64{}
	for range lines {
		var b strings.Builder
		for range 5 {
			w := fmt.Sprintf("word%d ", r.IntN(200))
			b.WriteString(w)
			want[strings.TrimSpace(w)]++
		}
		text = append(text, b.String())
	}
	return text, want
}

// feed writes lines in small steps.
func feed(ctx context.Context, cl *kgo.Client, text []string, pause time.Duration) error {
	for i := 0; i < len(text) && ctx.Err() == nil; i += 50 {
		var records []*kgo.Record
		for _, l := range text[i:min(i+50, len(text))] {
			r := kgo.StringRecord(l)
			r.Topic, r.Partition = "lines", int32(i/50%2)
			records = append(records, r)
		}
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	return ctx.Err()
}

func topicsFor(t testing.TB, cl *kgo.Client) {
	t.Helper()
	for _, topic := range []string{"lines", "totals"} {
		createTopic(t, cl, topic, 2)
	}
}

// audit reads the totals until every word has been counted as often as it was written, and checks every result on the way:
// counts go up by what one commit holds, and none comes twice. It returns what is wrong.
func audit(t testing.TB, cl *kgo.Client, want map[string]int64) (wrong []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	last := map[string]int64{}
	results := 0
	missing := func() (n int64) {
		for w, all := range want {
			n += max(all-last[w], 0)
		}
		return n
	}
	for missing() > 0 {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return append(wrong, fmt.Sprintf("after %d results %d words are missing", results, missing()))
		}
		fs.EachRecord(func(r *kgo.Record) {
			n := int64(binary.BigEndian.Uint64(r.Value))
			if n <= last[string(r.Key)] {
				wrong = append(wrong, fmt.Sprintf("offset %d: %s=%d comes after %d", r.Offset, r.Key, n, last[string(r.Key)]))
			}
			last[string(r.Key)] = n
			results++
		})
	}
	for w, n := range last {
		if n != want[w] {
			wrong = append(wrong, fmt.Sprintf("%s was counted %d times, it was written %d times", w, n, want[w]))
		}
	}
	t.Logf("%d results", results)
	return wrong
}

func exact(t testing.TB, cl *kgo.Client, want map[string]int64) {
	t.Helper()
	for _, w := range audit(t, cl, want) {
		t.Error(w)
	}
}

func reader(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.ConsumeTopics("totals"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// TestKilledApplication kills an application again and again while a broker in another process goes on.
func TestKilledApplication(t *testing.T) {
	for _, w := range killed(t, "exactly-once") {
		t.Error(w)
	}
}

// TestTheAuditSeesDoubling shows that the check above notices what it is there for. Whether a kill lands between output and
// commit is luck, so there are several tries.
func TestTheAuditSeesDoubling(t *testing.T) {
	for range 6 {
		if wrong := killed(t, "at-least-once"); len(wrong) > 0 {
			t.Logf("%d things are wrong, such as: %s", len(wrong), wrong[0])
			return
		}
	}
	t.Error("an application that was killed at least once counted nothing twice")
}

func killed(t *testing.T, guarantee string) (wrong []string) {
	long(t)
	dir := t.TempDir()
	addr := address(t, filepath.Join(dir, "broker"))
	cl := reader(t, kgo.SeedBrokers(addr))
	topicsFor(t, cl)
	r := rand.New(rand.NewPCG(1, 1))
	text, want := workload(r, 6000)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fed := make(chan error, 1)
	go func() { fed <- feed(ctx, cl, text, 40*time.Millisecond) }()
	log := filepath.Join(dir, "log")
	defer dump(t, log)
	env := []string{"MOLDAU_TEST_STATE=" + filepath.Join(dir, "state"), "MOLDAU_TEST_BROKERS=" + addr, "MOLDAU_TEST_GUARANTEE=" + guarantee}
	for range 10 {
		cmd := spawn(t, log, env...)
		time.Sleep(time.Duration(150+r.IntN(400)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
	}
	cmd := spawn(t, log, env...)
	wrong = audit(t, cl, want)
	if err := <-fed; err != nil {
		t.Error(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the application ended with %v", err)
	}
	return wrong
}

// TestKilledWithItsBroker kills an application that has its broker inside.
func TestKilledWithItsBroker(t *testing.T) {
	long(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	r := rand.New(rand.NewPCG(2, 2))
	text, want := workload(r, 20_000)
	b := server(t, filepath.Join(state, "broker"))
	cl := reader(t, kgo.SeedBrokers(b.Addr()))
	topicsFor(t, cl)
	if err := feed(context.Background(), cl, text, 0); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "log")
	defer dump(t, log)
	for range 10 {
		cmd := spawn(t, log, "MOLDAU_TEST_STATE="+state)
		time.Sleep(time.Duration(100+r.IntN(300)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
	}
	app := start(t, "words", build(t, WordCount), moldau.Config{StateDir: state})
	exact(t, reader(t, app.Client()...), want)
	if err := app.end(); err != nil {
		t.Error(err)
	}
}

// dump shows the end of a log of a test that failed.
func dump(t testing.TB, file string) {
	if !t.Failed() {
		return
	}
	b, _ := os.ReadFile(file)
	lines := bytes.Split(b, []byte("\n"))
	for _, l := range lines[max(0, len(lines)-100):] {
		t.Logf("%s", l)
	}
}

func createTopic(t testing.TB, cl *kgo.Client, topic string, partitions int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	admin := kadm.NewClient(cl)
	if _, err := admin.CreateTopic(ctx, partitions, -1, nil, topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "brokers know topic "+topic, func() bool {
		d, err := admin.ListTopics(ctx, topic)
		return err == nil && d.Has(topic) && len(d[topic].Partitions) == int(partitions)
	})
}
