package broker

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
)

func TestConnectionLimits(t *testing.T) {
	b := start(t, listening, func(c *Config) { c.MaxConnectionsPerIP = 2 })
	one, two := tcp(t, b.Addr()), tcp(t, b.Addr())
	if !one.served() || !two.served() {
		t.Fatal("two connections are allowed")
	}
	if !tcp(t, b.Addr()).ends() {
		t.Error("a third connection is served")
	}
	one.nc.Close()
	for range 1000 {
		three, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		three.SetDeadline(time.Now().Add(10 * time.Second))
		r := &raw{t: t, nc: three, format: kmsg.NewRequestFormatter()}
		three.Write(r.format.AppendRequest(nil, &kmsg.ApiVersionsRequest{}, 1))
		_, err = r.receive(&kmsg.ApiVersionsRequest{})
		three.Close()
		if err == nil {
			return
		}
	}
	t.Error("the place of a closed connection is never free")
}

// A client over its quota is told at once, and its next request waits.
func TestThrottle(t *testing.T) {
	b := start(t, listening)
	b.security.quotas.Set(auth.Entity{Client: "test"}, map[string]float64{auth.ProducerByteRate: 1000})
	r := tcp(t, b.Addr())
	ask[*kmsg.CreateTopicsResponse](dialRaw(t, b), 7, &kmsg.CreateTopicsRequest{Topics: []kmsg.CreateTopicsRequestTopic{{Topic: "t", NumPartitions: 1, ReplicationFactor: 1}}})
	q := &kmsg.ProduceRequest{Acks: -1, Topics: []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: make([]byte, 11_300)}}}}}
	began := time.Now()
	resp := ask[*kmsg.ProduceResponse](r, 9, q)
	if resp.ThrottleMillis < 200 || resp.ThrottleMillis > 2000 {
		t.Errorf("throttled for %d ms", resp.ThrottleMillis)
	}
	if at := time.Since(began); at > time.Duration(resp.ThrottleMillis)*time.Millisecond/2 {
		t.Errorf("the answer takes %v", at)
	}
	ask[*kmsg.ApiVersionsResponse](r, 0, &kmsg.ApiVersionsRequest{})
	if passed := time.Since(began); passed < time.Duration(resp.ThrottleMillis)*time.Millisecond {
		t.Errorf("the next request is answered after %v", passed)
	}
}

func TestBudget(t *testing.T) {
	b := newBudget(10)
	ctx, cancel := context.WithCancel(t.Context())
	if !b.take(ctx, new(share), 8) {
		t.Fatal("there is room")
	}
	large, small := make(chan bool), make(chan bool)
	go func() { large <- b.take(ctx, new(share), 5) }()
	waits := func(n int) {
		for {
			b.mu.Lock()
			got := len(b.queue)
			b.mu.Unlock()
			if got == n {
				return
			}
		}
	}
	waits(1)
	go func() { small <- b.take(t.Context(), new(share), 2) }()
	waits(2) // in turn, although there is room for it
	cancel()
	if <-large {
		t.Error("given after the end")
	}
	if !<-small {
		t.Error("who stood behind gets nothing")
	}
	b.give(8)
	b.give(2)
	if b.left != 10 {
		t.Errorf("%d bytes left of 10", b.left)
	}
}

// One request at a time is lent what is not there, and only while nothing of that is owed.
func TestBudgetLends(t *testing.T) {
	b := newBudget(10)
	var a, c, d share
	got := make(chan *share, 3)
	take := func(s *share, n int64) {
		go func() {
			b.take(t.Context(), s, n)
			got <- s
		}()
	}
	for _, s := range []*share{&a, &c} {
		b.take(t.Context(), s, 5)
	}
	take(&d, 1) // has nothing that others wait for
	for waiting := 0; waiting == 0; {
		b.mu.Lock()
		waiting = len(b.queue)
		b.mu.Unlock()
	}
	take(&a, 4)
	if s := <-got; s != &a || b.left != -4 {
		t.Fatalf("%d bytes are left, who began has %d", b.left, a.held)
	}
	b.take(t.Context(), &a, 7)
	take(&c, 2)
	for waiting := 0; waiting < 2; {
		b.mu.Lock()
		waiting = len(b.queue)
		b.mu.Unlock()
	}
	b.read(&a)
	b.mu.Lock()
	if len(b.queue) != 2 || b.left != -11 {
		t.Errorf("%d wait, %d bytes are left", len(b.queue), b.left)
	}
	b.mu.Unlock()
	b.give(a.held)
	<-got
	<-got
	b.read(&c)
	b.give(c.held)
	b.give(d.held)
	if b.left != 10 || b.lent != nil || c.held != 7 || d.held != 1 {
		t.Errorf("%d bytes left of 10", b.left)
	}
}

// Requests that are half read hold memory that others wait for, who hold some too.
func TestHalfReadRequestsDoNotWaitForEachOther(t *testing.T) {
	b := start(t)
	b.budget = newBudget(4 << 20)
	dialRaw(t, b).createTopic("t", 1)
	q := kmsg.NewPtrProduceRequest()
	q.Version, q.Acks = 9, -1
	q.Topics = []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: make([]byte, 2<<20)}}}}
	var conns []*raw
	var frame []byte
	for range 5 {
		r := dialRaw(t, b)
		frame = r.format.AppendRequest(nil, q, 1)
		r.nc.SetDeadline(time.Now().Add(10 * time.Second))
		r.nc.Write(frame[:1000])
		conns = append(conns, r)
	}
	for left := int64(1); left > 0; {
		b.budget.mu.Lock()
		left = b.budget.left
		b.budget.mu.Unlock()
	}
	var writers sync.WaitGroup
	defer writers.Wait()
	for _, r := range conns {
		writers.Go(func() { r.nc.Write(frame[1000:]) })
	}
	for _, r := range conns {
		if _, err := r.receive(q); err != nil {
			t.Fatal(err)
		}
	}
	b.budget.mu.Lock()
	defer b.budget.mu.Unlock()
	if b.budget.left != b.budget.all {
		t.Errorf("%d bytes left of %d", b.budget.left, b.budget.all)
	}
}

func TestListenerRefuses(t *testing.T) {
	ok := func(l Listener, edit ...func(*Config)) error {
		c := Config{Dir: "x", Listeners: []Listener{l}}
		for _, e := range edit {
			e(&c)
		}
		return c.Validate()
	}
	certs := &TLS{Cert: "c", Key: "k"}
	passwords := []auth.Mechanism{auth.ScramSHA256}
	for what, c := range map[string]struct {
		err  error
		good bool
	}{
		"loopback":                    {ok(Listener{Address: "127.0.0.1:0"}), true},
		"localhost":                   {ok(Listener{Address: "localhost:0"}), true},
		"a network":                   {ok(Listener{Address: "10.0.0.1:0"}), false},
		"a network, forced":           {ok(Listener{Address: "10.0.0.1:0"}, func(c *Config) { c.OpenToNetwork = true }), true},
		"a network, TLS only":         {ok(Listener{Address: "10.0.0.1:0", TLS: certs}), false},
		"a network, passwords only":   {ok(Listener{Address: "10.0.0.1:0", SASL: passwords}), false},
		"a network, both":             {ok(Listener{Address: "10.0.0.1:0", TLS: certs, SASL: passwords}), true},
		"a network, certificates":     {ok(Listener{Address: "10.0.0.1:0", TLS: &TLS{Cert: "c", Key: "k", ClientCA: "a"}}), true},
		"a network, if they have one": {ok(Listener{Address: "10.0.0.1:0", TLS: &TLS{Cert: "c", Key: "k", ClientCA: "a", ClientOptional: true}}), false},
		"tokens of nobody":            {ok(Listener{Address: "127.0.0.1:0", SASL: []auth.Mechanism{auth.OAuthBearer}}), false},
		"a made-up mechanism":         {ok(Listener{Address: "127.0.0.1:0", SASL: []auth.Mechanism{"KERBEROS"}}), false},
		"no key":                      {ok(Listener{Address: "127.0.0.1:0", TLS: &TLS{Cert: "c"}}), false},
		"super users without rules":   {ok(Listener{Address: "127.0.0.1:0"}, func(c *Config) { c.SuperUsers = []string{"User:x"} }), false},
		"a super user without a type": {ok(Listener{Address: "127.0.0.1:0"}, func(c *Config) { c.ACLs, c.SuperUsers = true, []string{"x"} }), false},
	} {
		if (c.err == nil) != c.good {
			t.Errorf("%s: %v", what, c.err)
		}
	}
}
