package moldau_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

// What a test of durable timers, TTL, a global store, wrapped processors and a sink to several partitions is about.
var (
	visits    = stream.NewTopic("visits", serde.String, serde.String)
	people    = stream.NewTopic("people", serde.String, serde.String)
	news      = stream.NewTopic("news", serde.String, serde.String).Partitions(newsPartitions)
	names     = state.NewKeyValue("names", serde.String, serde.String)
	recently  = state.NewKeyValue("recently", serde.String, serde.Int64).TTL(40 * time.Millisecond)
	departure = state.NewTimers("departure", serde.String)
	errRude   = errors.New("a rude visitor")
)

const (
	newsPartitions = 4
	lives          = 7 // of the application
)

// visitor tells of visits, counting those within 40 ms of each other, and of visitors who have not been seen for 25 ms.
type visitor struct {
	people *stream.GlobalKTable[string, string]
	names  *state.KV[string, string]
	seen   *state.KV[string, int64]
	leave  *state.TimerStore[string]
}

func (p *visitor) Init(s *stream.Scope[string, string]) error {
	p.names, p.seen, p.leave = p.people.Open(s), recently.Open(s), departure.Open(s)
	s.OnTimer(p.leave, func(c *stream.Context[string, string], k string, at time.Time) error {
		n, _ := p.seen.Get(k)
		c.Emit(k, fmt.Sprintf("left at %d, after %d", at.UnixMilli(), n))
		return nil
	})
	return nil
}

func (p *visitor) Process(c *stream.Context[string, string], r stream.Record[string, string]) error {
	n, _ := p.seen.Get(r.Key)
	p.seen.Put(r.Key, n+1)
	p.leave.Set(r.Key, r.Time.Add(25*time.Millisecond))
	name, _ := p.names.Get(r.Key)
	c.Emit(r.Key, fmt.Sprintf("%s, visit %d: %s", name, n+1, r.Value))
	if r.Value == "rude" {
		return errRude
	}
	return nil
}

// visiting is the topology. Names are kept in upper case; every piece of news goes to its visitor's partition and to the last.
func visiting(b *stream.Builder) {
	var n atomic.Int64
	b.Around(func(_ stream.Call, next func() error) error {
		if n.Add(1)%8 == 0 {
			time.Sleep(time.Millisecond) // leaves work for every life of the application
		}
		if err := next(); !errors.Is(err, errRude) {
			return err
		}
		return nil
	})
	g := b.GlobalStore(people, names, func(r stream.Record[string, string]) (string, string, error) {
		return r.Key, strings.ToUpper(r.Value), nil
	})
	b.Stream(visits).
		Process(func() stream.Processor[string, string, string, string] { return &visitor{people: g} }, g, recently, departure).
		To(news.PartitionsBy(func(k, _ string, n int32) []int32 { return []int32{int32(k[len(k)-1]) % (n - 1), n - 1} }))
}

// TestVisitsKilled kills the application again and again: every partition must hold in the end what streamtest puts there, record for
// record.
func TestVisitsKilled(t *testing.T) {
	for _, w := range visitsKilled(t, "exactly-once") {
		t.Error(w)
	}
}

// TestVisitsShowDoubling shows that the comparison notices what it is there for. Whether a kill lands between output and commit is luck,
// so there are several tries.
func TestVisitsShowDoubling(t *testing.T) {
	for range 6 {
		if wrong := visitsKilled(t, "at-least-once"); len(wrong) > 0 {
			return
		}
	}
	t.Error("an application that was killed at least once told nothing twice")
}

func visitsKilled(t *testing.T, guarantee string) (wrong []string) {
	long(t)
	dir := t.TempDir()
	b := server(t, filepath.Join(dir, "broker"))
	defer b.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics("news"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for topic, n := range map[string]int32{"visits": 1, "people": 1, "news": newsPartitions} {
		createTopic(t, cl, topic, n)
	}
	model := streamtest.New(t, visiting, streamtest.CommitEvery(100))
	var before, records []*kgo.Record
	for i := range 20 {
		k, v := fmt.Sprintf("v%d", i), fmt.Sprintf("name %d", i)
		before = append(before, &kgo.Record{Topic: "people", Key: []byte(k), Value: []byte(v)})
		streamtest.In(model, people).Send(k, v)
	}
	r := rand.New(rand.NewPCG(5, 5))
	for i := range 4000 {
		k, v, at := fmt.Sprintf("v%d", r.IntN(25)), "hello", int64(1000+i-r.IntN(3))
		if r.IntN(10) == 0 {
			v = "rude"
		}
		records = append(records, &kgo.Record{Topic: "visits", Key: []byte(k), Value: []byte(v), Timestamp: time.UnixMilli(at)})
		streamtest.In(model, visits).Send(k, v, time.UnixMilli(at))
	}
	model.Commit()
	want := make([][]string, newsPartitions)
	missing := 0
	for _, one := range model.Raw("news") {
		want[one.Partition] = append(want[one.Partition], fmt.Sprintf("%s: %s @%d", one.Key, one.Value, one.Time.UnixMilli()))
		missing++
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := cl.ProduceSync(ctx, append(before, records...)...).FirstErr(); err != nil {
		t.Fatal(err)
	}

	log := filepath.Join(dir, "log")
	defer dump(t, log)
	env := []string{"MOLDAU_TEST_TOPOLOGY=visits", "MOLDAU_TEST_STATE=" + filepath.Join(dir, "state"), "MOLDAU_TEST_BROKERS=" + b.Addr(), "MOLDAU_TEST_GUARANTEE=" + guarantee}
	got, total := make([]int, newsPartitions), missing
	for life := range lives {
		cmd := spawn(t, log, env...)
		for missing > total*(lives-1-life)/lives && ctx.Err() == nil && len(wrong) == 0 {
			cl.PollFetches(ctx).EachRecord(func(one *kgo.Record) {
				line, at := fmt.Sprintf("%s: %s @%d", one.Key, one.Value, one.Timestamp.UnixMilli()), got[one.Partition]
				if at >= len(want[one.Partition]) || want[one.Partition][at] != line {
					wrong = append(wrong, fmt.Sprintf("partition %d, record %d is %q", one.Partition, at, line))
				}
				got[one.Partition]++
				missing--
			})
		}
		if len(wrong) > 0 {
			cmd.Process.Kill()
			cmd.Wait()
			return wrong
		}
		if life < lives-1 {
			time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
			cmd.Process.Kill()
			cmd.Wait()
			continue
		}
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the application ended with %v", err)
		}
	}
	if missing > 0 {
		wrong = append(wrong, fmt.Sprintf("%d records are missing", missing))
	}
	return wrong
}
