package moldau_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Settings of TestTakeover: a broker of Apache Kafka, the class path of scripts/takeover/Takeover.java, and, if not all of them,
// the topologies.
const (
	takeoverKafka      = "MOLDAU_KAFKA"
	takeoverClasses    = "MOLDAU_TAKEOVER"
	takeoverTopologies = "MOLDAU_TOPOLOGIES"
)

// ways are who runs an application while each third of the input is processed: J is Kafka Streams, G is Moldau. A small letter is killed before
// it is done, and the next one does the rest. The first way is what the others are compared with: nobody stops there.
var ways = []string{"JJJ", "JGJ", "GJG", "jGG", "gJG"}

// TestTakeover has Kafka Streams and Moldau take over applications from each other, on Apache Kafka: their topics, changelogs and
// committed positions. What comes out must be what Kafka Streams alone puts out, and so must be what lies in the changelogs.
func TestTakeover(t *testing.T) {
	brokers, classes := os.Getenv(takeoverKafka), os.Getenv(takeoverClasses)
	if brokers == "" || classes == "" {
		t.Skip("make takeover runs this beside Apache Kafka and Kafka Streams")
	}
	h := &handover{t: t, brokers: brokers, dir: t.TempDir(), random: rand.New(rand.NewPCG(7, 7)), now: time.Now().Add(-time.Hour).Truncate(time.Minute)}
	h.cl, h.input = h.client(), h.client(kgo.ProducerBatchMaxBytes(10<<20), kgo.TransactionalID("takeover"))
	h.admin = kadm.NewClient(h.cl)
	h.java, h.doomed = runJava(t, brokers, classes), runJava(t, brokers, classes)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ours says:\n%s", h.log.String())
		}
	})
	var topics, compacted []string
	for _, topology := range takeovers {
		if only := os.Getenv(takeoverTopologies); only != "" && !slices.Contains(strings.Split(only, ","), topology.name) {
			continue
		}
		topics = append(topics, topology.name+"-a", topology.name+"-b")
		if topology.compacted {
			compacted = append(compacted, topology.name+"-b")
		}
		for _, way := range ways {
			a := &handed{takeover: topology, way: way, app: "takeover-" + topology.name + "-" + way}
			for _, out := range slices.Concat(topology.ordered, topology.final) {
				topics = append(topics, a.app+"-"+out)
			}
			h.apps = append(h.apps, a)
		}
	}
	h.create(topics)
	if _, err := h.admin.AlterTopicConfigs(h.context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: new("compact")}}, compacted...); err != nil {
		t.Fatal(err)
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
	takeoverPatience   = 3 * time.Minute       // with a machine that has much else to do
	takeoverSlow       = 20 * time.Millisecond // for each record that who will be killed reads
)

// handover is the test at work.
type handover struct {
	t       *testing.T
	brokers string
	dir     string
	random  *rand.Rand
	now     time.Time // of the input
	cl      *kgo.Client
	input   *kgo.Client // transactional
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
	ctx, cancel := context.WithTimeout(context.Background(), takeoverPatience)
	h.t.Cleanup(cancel)
	return ctx
}

// create makes topics, and waits until the broker knows them.
func (h *handover) create(topics []string) {
	h.t.Helper()
	ctx := h.context()
	made, err := h.admin.CreateTopics(ctx, takeoverPartitions, -1, nil, topics...)
	if err == nil {
		err = made.Error()
	}
	for err == nil {
		var known kadm.TopicDetails
		if known, err = h.admin.ListTopics(ctx, topics...); err == nil && known.Error() == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatal(err)
}

// holder is who has the application at the end of a third.
func (a *handed) holder(third int) byte {
	if who := a.way[third]; who < 'a' {
		return who
	}
	return a.way[third+1]
}

// keeps says that nothing changes when a third begins.
func (a *handed) keeps(third int) bool {
	return third > 0 && third < len(a.way) && a.holder(third-1) == a.way[third]
}

// change has the applications processed by whom the third says, and writes its input while those that change hands are stopped.
func (h *handover) change(third int) {
	h.stop(third)
	h.feed(third > 0)
	var java, ours []*handed // to be killed
	for _, a := range h.apps {
		if a.keeps(third) {
			continue
		}
		switch a.way[third] {
		case 'J':
			h.startJava(h.java, a, 0)
		case 'j':
			java = append(java, a)
		case 'g':
			ours = append(ours, a)
		default:
			h.start(a)
		}
	}
	if len(ours) > 0 {
		child := h.startChild(ours)
		h.begun(ours)
		child.Process.Kill()
		child.Wait()
	}
	if len(java) > 0 {
		for _, a := range java {
			h.startJava(h.doomed, a, takeoverSlow)
		}
		h.begun(java)
		h.doomed.cmd.Process.Kill()
	}
	for _, a := range slices.Concat(java, ours) {
		h.t.Logf("%s was killed when it had committed %d records", a.app, h.committed(a))
		if a.holder(third) == 'G' {
			h.start(a)
			continue
		}
		h.abandoned(a) // Java would be refused, and would not try again
		h.startJava(h.java, a, 0)
	}
}

func (h *handover) startJava(j *javaStreams, a *handed, slow time.Duration) {
	j.order("start", a.app, a.takeover.name, filepath.Join(h.dir, a.app+"-java"), strconv.FormatInt(slow.Milliseconds(), 10))
}

// start begins or goes on with an application in this process.
func (h *handover) start(a *handed) {
	app, err := a.takeover.open(h.brokers, a.app, h.dir, 0, slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelWarn})))
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
		case third == 0 || a.keeps(third):
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

func (h *handover) topologies() (names []string) {
	for _, a := range h.apps {
		if a.way == ways[0] {
			names = append(names, a.takeover.name)
		}
	}
	return names
}
