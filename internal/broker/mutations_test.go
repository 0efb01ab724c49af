package broker

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
)

// A client that creates and deletes more partitions than its quota gives is refused if it knows the error, and waits. One
// request may use up what eleven seconds give, and more.
func TestControllerMutationRate(t *testing.T) {
	b := start(t, listening, frozen)
	ctx := testContext(t)
	inside := kadm.NewClient(client(t, b))
	limit := func(client string) {
		t.Helper()
		rs, err := inside.AlterClientQuotas(ctx, []kadm.AlterClientQuotaEntry{{
			Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: &client}}, Ops: []kadm.AlterClientQuotaOp{{Key: auth.ControllerMutationRate, Value: 10}},
		}})
		if err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
	}
	limit("franz")
	limit("test") // the client of what follows
	adm := kadm.NewClient(client(t, b, kgo.SeedBrokers(b.Addr()), kgo.Dialer((&netDialer{}).dial), kgo.ClientID("franz")))
	if rs, err := adm.CreateTopics(ctx, 111, 1, nil, "large"); err != nil || rs["large"].Err != nil {
		t.Fatal(err, rs) // 110 are there: one request may take more than there is
	}
	throttled := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, kerr.ThrottlingQuotaExceeded) {
			t.Errorf("%s: %v, want THROTTLING_QUOTA_EXCEEDED", what, err)
		}
	}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "more", NumPartitions: 1, ReplicationFactor: 1}, {Topic: "large", NumPartitions: 1, ReplicationFactor: 1}}
	resp, err := create.RequestWith(ctx, client(t, b, kgo.SeedBrokers(b.Addr()), kgo.Dialer((&netDialer{}).dial), kgo.ClientID("franz")))
	if err != nil {
		t.Fatal(err)
	}
	for _, rt := range resp.Topics {
		if rt.Topic == "large" {
			wantCode(t, "a topic that exists", rt.ErrorCode, kerr.TopicAlreadyExists)
		} else {
			wantCode(t, "one that would be new", rt.ErrorCode, kerr.ThrottlingQuotaExceeded)
		}
	}
	if resp.ThrottleMillis != 100 {
		t.Errorf("throttled for %d ms", resp.ThrottleMillis)
	}
	ds, err := adm.DeleteTopics(ctx, "large")
	if err != nil {
		t.Fatal(err)
	}
	throttled("deleting", ds["large"].Err)
	ps, err := adm.CreatePartitions(ctx, 1, "large")
	if err != nil {
		t.Fatal(err)
	}
	throttled("partitions", ps["large"].Err)
	if got, more := len(b.catalog.topic("large").partitions), b.catalog.topic("more"); got != 111 || more != nil {
		t.Errorf("what is refused is done: %d partitions, %v", got, more)
	}

	// Clients of before KIP-599 do not know the error: what they ask for is done.
	old := tcp(t, b.Addr())
	began := time.Now()
	for i, want := range []int32{0, 100} {
		q := &kmsg.CreateTopicsRequest{Topics: []kmsg.CreateTopicsRequestTopic{{Topic: string(rune('a' + i)), NumPartitions: 110 - 109*int32(i), ReplicationFactor: 1}}}
		if resp := ask[*kmsg.CreateTopicsResponse](old, 5, q); resp.Topics[0].ErrorCode != 0 || resp.ThrottleMillis != want {
			t.Errorf("%+v: want %d ms", resp, want)
		}
	}
	if resp := ask[*kmsg.DeleteTopicsResponse](old, 4, &kmsg.DeleteTopicsRequest{TopicNames: []string{"b"}}); resp.Topics[0].ErrorCode != 0 || resp.ThrottleMillis != 200 {
		t.Errorf("%+v", resp)
	}
	if passed := time.Since(began); passed < 100*time.Millisecond {
		t.Errorf("the next request is answered after %v", passed)
	}
	// A topic that is merely named is not made either.
	m := kmsg.NewPtrMetadataRequest()
	m.AllowAutoTopicCreation = true
	m.Topics = []kmsg.MetadataRequestTopic{{Topic: ptr("named")}}
	wantCode(t, "a topic that is named", ask[*kmsg.MetadataResponse](old, 9, m).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
}
