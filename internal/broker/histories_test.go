package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/histories"
)

// TestHistories has clients work while the broker and they themselves are struck, and has the history of it checked. By turns
// the broker is a process that is killed, every second time without syncing, and one in this process whose disk loses power; the seed
// says which. MOLDAU_ROUNDS
// rounds of MOLDAU_ROUND each; two of two seconds by default.
func TestHistories(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	rounds, length := 2, 2*time.Second
	seed := uint64(time.Now().UnixNano())
	for name, parse := range map[string]func(string) error{
		"MOLDAU_ROUNDS": func(s string) (err error) { rounds, err = strconv.Atoi(s); return err },
		"MOLDAU_ROUND":  func(s string) (err error) { length, err = time.ParseDuration(s); return err },
		"MOLDAU_SEED":   func(s string) (err error) { seed, err = strconv.ParseUint(s, 10, 64); return err },
	} {
		if s := os.Getenv(name); s != "" {
			if err := parse(s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	for n := range uint64(rounds) {
		seed := seed + n
		r := &round{seed: seed, length: length, powerLoss: seed%2 == 1, unsynced: seed%4 == 2, next: seed%3 == 2, blows: usual, every: time.Second, patience: 2 * time.Minute}
		r.run(t)
		if r.stuck != nil {
			t.Errorf("seed %d: %v", r.seed, r.stuck)
		}
		for _, odd := range r.w.odd {
			t.Error(odd)
		}
		for _, a := range r.anomalies {
			t.Error(a)
		}
		if t.Failed() {
			r.keep(t)
			return
		}
	}
}

// round is some time of work and strikes, and what came of it.
type round struct {
	seed      uint64
	length    time.Duration
	powerLoss bool
	unsynced  bool // Durability OS, for a process
	next      bool
	plant     string
	blows     []blow
	whom      string        // what the names of those begin with who are killed
	every     time.Duration // on average
	patience  time.Duration // until all must be quiet again; a machine with much else to do is slow

	stuck     error // why it did not become quiet; what was seen before is judged all the same
	w         *workload
	anomalies []histories.Anomaly
}

func (r *round) run(t *testing.T) {
	t.Helper()
	rng := rand.New(rand.NewPCG(r.seed, 0))
	l := &line{conns: map[net.Conn]struct{}{}}
	var err error
	if r.powerLoss {
		l.to, err = newEmbedded(l, rng, r.plant)
	} else {
		l.to, err = newProcess(t.TempDir(), r.plant, r.unsynced)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.to.stop()
	w := &workload{recorder: &recorder{start: time.Now()}, line: l, next: r.next, ids: map[string][16]byte{}}
	var giveUp context.CancelFunc
	w.broken, giveUp = context.WithCancel(context.Background())
	defer func() {
		giveUp()
		if !t.Failed() { // else they may hang, and nobody looks for goroutines that are left
			w.closing.Wait()
		}
	}()
	w.h.PowerLoss = r.powerLoss
	r.w = w
	cl := w.client()
	defer cl.Close()
	w.create(t, cl)
	if plants[r.plant].config != nil { // it comes with the second start, so that the topics last
		if err := l.to.crash(); err != nil {
			t.Fatal(err)
		}
	}

	people := w.people(rng)
	ctx, cancel := context.WithTimeout(context.Background(), r.length)
	defer cancel()
	var working sync.WaitGroup
	var dies []func()
	for _, p := range people {
		working.Go(func() { p.run(ctx) })
		if strings.HasPrefix(p.name, r.whom) {
			dies = append(dies, p.die)
		}
	}
	struck, err := strike(ctx, rng, r.blows, r.every, l.to, l, dies)
	if err != nil {
		t.Errorf("seed %d: %v", r.seed, err)
		giveUp()
		cancel()
	}
	working.Wait()
	for _, f := range w.atEnd {
		f()
	}
	if t.Failed() {
		return
	}
	if r.stuck = w.calm(cl, r.patience); r.stuck != nil {
		w.h.Unfinished, w.h.Closing, w.h.Final, w.h.FinalAll = true, nil, nil, nil
	}
	r.anomalies = histories.Check(&w.h)
	n := w.count()
	t.Logf("seed %d, power loss %v, KIP-848 %v: %v, %+v", r.seed, r.powerLoss, r.next, struck, n)
	if r.length >= 20*time.Second && r.plant == "" && r.stuck == nil && (n.Committed == 0 || n.Aborted == 0 || n.Plain == 0 || n.Copied == 0 || n.Reads == 0 || n.Positions == 0) {
		t.Errorf("seed %d: nothing was put to the test: %+v", r.seed, n)
	}
}

// people are the clients of a round.
func (w *workload) people(rng *rand.Rand) []*person {
	var out []*person
	add := func(name string, live func(context.Context, *person)) {
		out = append(out, &person{name: name, live: live, rng: rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))})
	}
	for i := range 2 {
		add(fmt.Sprint("plain-", i), w.plain)
		add(fmt.Sprint("txn-", i), w.transactional(fmt.Sprint("txn-", i)))
		add(fmt.Sprint("mixed-", i), w.mixed(fmt.Sprint("mixed-", i)))
		add(fmt.Sprint("copy-", i), w.copying(fmt.Sprint("copy-", i)))
	}
	add("committed", w.reader(true))
	add("uncommitted", w.reader(false))
	add("watch", w.watching)
	add("asking", w.asking)
	return out
}

var transactionalIDs = []string{"txn-0", "txn-1", "mixed-0", "mixed-1", "copy-0", "copy-1"}

func (w *workload) create(t *testing.T, cl *kgo.Client) {
	t.Helper()
	q := kmsg.NewPtrCreateTopicsRequest()
	for _, name := range workTopics {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, workPartitions, -1
		configs := map[string]string{"segment.bytes": "65536"}
		if name == "mix" {
			configs["cleanup.policy"], configs["min.cleanable.dirty.ratio"] = "compact", "0.01"
		}
		for k, v := range configs {
			topic.Configs = append(topic.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: k, Value: &v})
		}
		q.Topics = append(q.Topics, topic)
	}
	resp, err := q.RequestWith(testContext(t), cl)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range resp.Topics {
		wantCode(t, "create "+topic.Topic, topic.ErrorCode, nil)
		w.ids[topic.Topic] = topic.TopicID
	}
}

// weight says how much a history puts to the test.
type weight struct{ Plain, Committed, Aborted, Unknown, Copied, Reads, Positions, Records int }

func (w *workload) count() (n weight) {
	for i := range w.h.Ops {
		switch op := &w.h.Ops[i]; {
		case !op.Txn:
			n.Plain += len(op.Writes)
		case op.Outcome == histories.Committed:
			n.Committed++
			if op.Group != "" {
				n.Copied++
			}
		case op.Outcome == histories.Aborted:
			n.Aborted++
		default:
			n.Unknown++
		}
	}
	for i := range w.h.Polls {
		n.Reads += len(w.h.Polls[i].Reads)
	}
	n.Positions, n.Records = len(w.h.Positions), len(w.h.Final)
	return n
}

// keep writes the history to a file that outlives the test.
func (r *round) keep(t *testing.T) {
	b, err := json.Marshal(&r.w.h)
	if err == nil {
		path := filepath.Join(os.TempDir(), fmt.Sprintf("moldau-history-%d.json", r.seed))
		err = os.WriteFile(path, b, 0o600)
		t.Logf("the history is in %s; MOLDAU_SEED=%d MOLDAU_ROUNDS=1 has the same strikes in store", path, r.seed)
	}
	if err != nil {
		t.Log(err)
	}
}
