package broker

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A group is moved to the consumer protocol member by member and back again, by real clients and while records come; each
// record is seen once. MOLDAU_KAFKA names an Apache Kafka to do the same there.
func TestGroupChangesProtocolAlive(t *testing.T) {
	for name, balancer := range map[string]kgo.GroupBalancer{"eager": kgo.RangeBalancer(), "cooperative": kgo.CooperativeStickyBalancer()} {
		t.Run(name, func(t *testing.T) {
			// Heartbeats in quick succession, so that the test is.
			b := start(t, partitions(6), func(c *Config) { c.ConsumerHeartbeatInterval = 20 * time.Millisecond })
			bridgeAlive(t, balancer, func(opts ...kgo.Opt) *kgo.Client { return client(t, b, opts...) })
		})
		if kafka := os.Getenv("MOLDAU_KAFKA"); kafka != "" {
			t.Run(name+" on Apache Kafka", func(t *testing.T) {
				bridgeAlive(t, balancer, func(opts ...kgo.Opt) *kgo.Client {
					cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(kafka))...)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(cl.Close)
					return cl
				})
			})
		}
	}
}

func bridgeAlive(t *testing.T, balancer kgo.GroupBalancer, connect func(...kgo.Opt) *kgo.Client) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	name := "bridge-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	p := connect(kgo.DefaultProduceTopic(name))
	create := kmsg.NewPtrCreateTopicsRequest()
	ct := kmsg.NewCreateTopicsRequestTopic()
	ct.Topic, ct.NumPartitions, ct.ReplicationFactor = name, 6, 1
	create.Topics = append(create.Topics, ct)
	if _, err := create.RequestWith(ctx, p); err != nil {
		t.Fatal(err)
	}
	group := func() (typ, state string) {
		t.Helper()
		ls, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range ls.Groups {
			if g.Group == name {
				return g.GroupType, g.GroupState
			}
		}
		return "", ""
	}
	seen := counted{seen: map[string]int{}}
	type running struct {
		stop context.CancelFunc
		done chan struct{}
	}
	var mu sync.Mutex
	active := map[int]int{} // by member: records seen since it was asked last
	next := 0
	run := func(opts ...kgo.Opt) running {
		next++
		id := next
		mine, stop := context.WithCancel(ctx)
		r := running{stop, make(chan struct{})}
		cl := connect(append([]kgo.Opt{kgo.ConsumerGroup(name), kgo.ConsumeTopics(name), kgo.HeartbeatInterval(20 * time.Millisecond),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxWait(20 * time.Millisecond)}, opts...)...)
		go func() {
			defer close(r.done)
			for mine.Err() == nil {
				fs := cl.PollRecords(mine, 20)
				fs.EachRecord(func(r *kgo.Record) {
					seen.add(string(r.Value))
					mu.Lock()
					active[id]++
					mu.Unlock()
				})
				if records := fs.Records(); len(records) > 0 {
					if err := cl.CommitRecords(ctx, records...); err != nil {
						t.Errorf("member %d: %v", id, err)
					}
				}
				cl.AllowRebalance()
			}
			cl.LeaveGroupContext(ctx)
		}()
		return r
	}
	halt := func(r running) { r.stop(); <-r.done }

	produced := 0
	// settle produces until every one of n members has seen something, and the group is stable: when it changes over while a
	// member is behind, the member's generation is over.
	settle := func(n int) {
		t.Helper()
		mu.Lock()
		clear(active)
		mu.Unlock()
		for {
			for range 12 {
				p.Produce(ctx, &kgo.Record{Key: fmt.Append(nil, produced), Value: fmt.Append(nil, produced)}, nil)
				produced++
			}
			if err := p.Flush(ctx); err != nil {
				t.Fatalf("%d members: %v", n, err)
			}
			mu.Lock()
			got := len(active)
			mu.Unlock()
			if _, state := group(); got == n && state == "Stable" {
				return
			}
			time.Sleep(5 * time.Millisecond) // a limit is set, and nothing to wait on
		}
	}
	classic, modern := kgo.Balancers(balancer), kgo.ServerSideBalancer()
	a, b := run(classic), run(classic)
	settle(2)
	if got, _ := group(); got != "classic" {
		t.Fatalf("before: a %s group", got)
	}
	c := run(modern)
	settle(3)
	if got, _ := group(); got != "consumer" {
		t.Fatalf("with the first of the new protocol: a %s group", got)
	}
	halt(a)
	settle(2)
	d := run(modern)
	halt(b)
	settle(2)
	// And back.
	e := run(classic)
	settle(3)
	halt(c)
	f := run(classic)
	settle(3)
	halt(d)
	settle(2)
	if got, _ := group(); got != "classic" {
		t.Fatalf("after the last of the new protocol: a %s group", got)
	}
	for seen.len() < produced && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	halt(e)
	halt(f)
	if seen.len() != produced {
		t.Errorf("%d of %d records seen", seen.len(), produced)
	}
	for v, n := range seen.seen {
		if n != 1 {
			t.Errorf("record %s was seen %d times", v, n)
		}
	}
}
