package franz

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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
