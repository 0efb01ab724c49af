package franz

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

func TestErrorsSayWhatTheyMean(t *testing.T) {
	for _, c := range []struct {
		from error
		want error
	}{
		{kerr.ProducerFenced, cluster.ErrFenced},
		{kerr.FencedInstanceID, cluster.ErrFenced},
		{kerr.IllegalGeneration, cluster.ErrGeneration},
		{kerr.UnknownMemberID, cluster.ErrGeneration},
		{kerr.RebalanceInProgress, cluster.ErrGeneration},
		{kerr.TransactionAbortable, cluster.ErrAborted},
		{kgo.ErrAborting, cluster.ErrAborted},
		{kerr.MessageTooLarge, cluster.ErrTooLarge},
		{kerr.UnknownTopicOrPartition, cluster.ErrMissingTopic},
		{kerr.UnknownTopicID, cluster.ErrRecreated},
		{kerr.OffsetOutOfRange, cluster.ErrOutOfRange},
		{kerr.GroupAuthorizationFailed, cluster.ErrUnauthorized},
		{kerr.SaslAuthenticationFailed, cluster.ErrUnauthorized},
		{kgo.ErrClientClosed, cluster.ErrClosed},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, cluster.ErrUnreachable},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, cluster.ErrUnreachable},
	} {
		err := wrap(fmt.Errorf("deep down: %w", c.from), "doing %s", "something")
		if !errors.Is(err, c.want) || !errors.Is(err, c.from) || !bytes.HasPrefix([]byte(err.Error()), []byte("doing something: ")) {
			t.Errorf("%v became %v", c.from, err)
		}
	}
	if wrap(nil, "nothing") != nil || code(0, "nothing") != nil {
		t.Error("no error became one")
	}
	if err := wrap(errors.New("else"), "doing"); meaning(err) != nil {
		t.Errorf("%v means something", err)
	}
}

// The plan of a group in which one member has restarted is the same to the byte: Kafka hands a static member its old
// assignment, and kgo asks for a rebalance where that is not what the leader would decide now.
func TestRestartedLeaderDecidesTheSame(t *testing.T) {
	cfg := cluster.MemberConfig{Group: "g", Subtopologies: []assign.Subtopology{{Topics: []string{"a", "b"}}, {Topics: []string{"c"}}}}
	partitions := map[string]int32{"a": 3, "b": 2, "c": 4}
	topics := []string{"a", "b", "c"}
	balancers := map[string]*balancer{"p": newBalancer(cfg), "q": newBalancer(cfg)}
	owned := map[string]map[string][]int32{}
	balance := func(pMember string) map[string][]byte {
		var members []kmsg.JoinGroupResponseMember
		for _, id := range []string{"p", "q"} {
			m := kmsg.NewJoinGroupResponseMember()
			m.MemberID, m.InstanceID = id+"-1", &id
			if id == "p" {
				m.MemberID = pMember
			}
			m.ProtocolMetadata = balancers[id].JoinGroupMetadata(topics, owned[id], 4)
			members = append(members, m)
		}
		mb, _, err := balancers["p"].MemberBalancer(members)
		must(t, err)
		plan, err := mb.(kgo.GroupMemberBalancerOrError).BalanceOrError(partitions)
		must(t, err)
		out := map[string][]byte{}
		for _, a := range plan.IntoSyncAssignment() {
			out[a.MemberID[:1]] = a.MemberAssignment
		}
		return out
	}
	first := balance("p-1")
	for id, b := range balancers {
		var err error
		owned[id], err = b.ParseSyncAssignment(first[id])
		must(t, err)
		plan, err := assign.DecodePlan(b.userData())
		must(t, err)
		if len(plan.Members) != 2 {
			t.Errorf("%s was told %+v", id, plan)
		}
	}
	owned["p"] = nil
	second := balance("p-2")
	for id := range first {
		if !bytes.Equal(first[id], second[id]) {
			t.Errorf("%s: the assignment changed", id)
		}
	}

	// Task 2 of the first sub-topology has no partition of b.
	n := map[string]int{}
	for _, b := range first {
		m, err := balancers["p"].ParseSyncAssignment(b)
		must(t, err)
		for topic, ps := range m {
			n[topic] += len(ps)
		}
	}
	if n["a"] != 3 || n["b"] != 2 || n["c"] != 4 {
		t.Errorf("assigned %v", n)
	}
}

func TestMemberConfigIsChecked(t *testing.T) {
	err := check(cluster.MemberConfig{Subtopologies: []assign.Subtopology{{Topics: []string{"a"}}, {Topics: []string{"a"}}}})
	if err == nil {
		t.Fatal("no group, a topic twice, and no error")
	}
	for _, want := range []string{"no group", "sub-topologies 0 and 1"} {
		if !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%q does not mention %q", err, want)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no brokers and no error")
	}
}

func TestPartitioner(t *testing.T) {
	p := partitioner{}.ForTopic("t")
	if got := p.Partition(&kgo.Record{Partition: 3}, 4); got != 3 || !p.RequiresConsistency(&kgo.Record{Partition: 3}) {
		t.Errorf("a record for partition 3 went to %d", got)
	}
	loose := &kgo.Record{Partition: -1}
	first := p.Partition(loose, 4)
	if again := p.Partition(loose, 4); again != first {
		t.Error("records without a partition do not stay together")
	}
	p.(kgo.TopicPartitionerOnNewBatch).OnNewBatch()
	if next := p.Partition(loose, 4); next == first {
		t.Error("a new batch went to the same partition")
	}
}

func TestBatchesAreReleasedOnce(t *testing.T) {
	var pool batchPool
	b := pool.get(3)
	b.records = append(b.records, flow.In{Key: []byte("k")})
	b.release()
	if b.records[0].Key != nil {
		t.Error("a released batch holds on to its bytes")
	}
	defer func() {
		if recover() == nil {
			t.Error("released twice without a word")
		}
	}()
	b.release()
}

func TestHeadersAreNotCopied(t *testing.T) {
	h := []flow.Header{{Key: "a", Value: []byte("1")}, {Key: "b"}}
	if got := headersIn(headersOut(h)); !slices.EqualFunc(got, h, func(a, b flow.Header) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }) {
		t.Errorf("%v", got)
	}
	if headersIn(nil) != nil || headersOut(nil) != nil {
		t.Error("no headers became some")
	}
}

// TestEvictedWhileJoining: kgo keeps its partitions if it hears only from the answer to its join that the group has
// given it up. To us they are lost, and what it still has is assigned anew.
func TestEvictedWhileJoining(t *testing.T) {
	a, b, c := cluster.TP{Topic: "t", Partition: 0}, cluster.TP{Topic: "t", Partition: 1}, cluster.TP{Topic: "t", Partition: 2}
	for name, tt := range map[string]struct {
		taken map[string][]int32 // by the rebalance in which the member is a new one
		added map[string][]int32
		want  []cluster.TP
	}{
		"nothing taken": {want: []cluster.TP{a, b}},
		"one taken":     {taken: map[string][]int32{"t": {0}}, want: []cluster.TP{b}},
		"one exchanged": {taken: map[string][]int32{"t": {0}}, added: map[string][]int32{"t": {2}}, want: []cluster.TP{b, c}},
		"all taken":     {taken: map[string][]int32{"t": {0, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMember(cluster.MemberConfig{Group: "g"})
			m.f = &fetcher{at: map[cluster.TP]*position{}}
			m.f.cl, _ = kgo.NewClient()
			defer m.f.cl.Close()
			id, generation := "first", int32(1)
			m.identify = func(*kgo.Client) (string, int32) { return id, generation }
			next := func() cluster.Event {
				t.Helper()
				m.mu.Lock()
				defer m.mu.Unlock()
				events, err := m.due()
				must(t, err)
				if len(events) != 1 {
					t.Fatalf("events %v", events)
				}
				return events[0]
			}
			m.onAssigned(t.Context(), nil, map[string][]int32{"t": {0, 1}})
			next()
			id, generation = "second", 5
			done := make(chan bool)
			go func() {
				m.onRevoked(t.Context(), nil, tt.taken)
				m.onAssigned(t.Context(), nil, tt.added)
				close(done)
			}()
			for waiting := true; waiting; runtime.Gosched() {
				m.mu.Lock()
				waiting = len(m.events) == 0
				m.mu.Unlock()
			}
			if e := next(); e.Kind != cluster.Lost || !slices.Equal(e.Partitions, []cluster.TP{a, b}) {
				t.Errorf("got %+v", e)
			}
			if g := m.Group(); g.Member != "first" || g.Generation != 1 {
				t.Errorf("before the answer it commits as %+v", g)
			}
			m.Released()
			<-done
			if e := next(); e.Kind != cluster.Assigned || !slices.Equal(e.Partitions, tt.want) {
				t.Errorf("then %+v", e)
			}
			if g := m.Group(); g.Member != "second" || g.Generation != 5 {
				t.Errorf("afterwards it commits as %+v", g)
			}
		})
	}
}
