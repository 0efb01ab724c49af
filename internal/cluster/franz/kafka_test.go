package franz

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/clustertest"
)

// brokers returns the cluster that integration tests run against.
func brokers(t testing.TB) []string {
	t.Helper()
	addr := os.Getenv("MOLDAU_KAFKA")
	if addr == "" {
		t.Skip("skipped: set MOLDAU_KAFKA to host:port of a broker")
	}
	return strings.Split(addr, ",")
}

func connect(t testing.TB, opts ...kgo.Opt) *Cluster {
	t.Helper()
	c, err := New(Config{Brokers: brokers(t), Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func setup(t testing.TB) clustertest.Setup {
	return clustertest.Setup{
		Connect: func(t testing.TB) cluster.Cluster { return connect(t) },
		Unreliable: func(t testing.TB) (cluster.Cluster, clustertest.Fault) {
			n := &network{}
			return connect(t, kgo.Dialer(n.dial), kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond })), n
		},
		Delete: func(t testing.TB, topic string) {
			req := kmsg.NewPtrDeleteTopicsRequest()
			req.TopicNames, req.TimeoutMillis = []string{topic}, 10_000
			rt := kmsg.NewDeleteTopicsRequestTopic()
			rt.Topic = &topic
			req.Topics = append(req.Topics, rt)
			if _, err := req.RequestWith(context.Background(), connect(t).cl); err != nil {
				t.Fatal(err)
			}
		},
		Unique:  fmt.Sprintf("t%d", time.Now().UnixMilli()),
		Restart: time.Second,
	}
}

func TestConformance(t *testing.T) {
	brokers(t)
	clustertest.Run(t, setup(t))
}

// network is a dialer whose connections can be cut at a request that ends a transaction.
type network struct {
	mu    sync.Mutex
	armed bool
	seen  bool
	down  bool
}

var errCut = errors.New("connection cut by the test")

func (n *network) LoseEnd(seen bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed, n.seen = true, seen
}

func (n *network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed, n.down = false, false
}

func (n *network) dial(ctx context.Context, kind, addr string) (net.Conn, error) {
	n.mu.Lock()
	down := n.down
	n.mu.Unlock()
	if down {
		return nil, errCut
	}
	conn, err := new(net.Dialer).DialContext(ctx, kind, addr)
	return &link{Conn: conn, n: n}, err
}

// link is one connection; kgo writes each request in one piece.
type link struct {
	net.Conn
	n *network
}

func (l *link) Write(b []byte) (int, error) {
	n := l.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return 0, errCut
	}
	if n.armed && len(b) > 6 && kmsg.Key(binary.BigEndian.Uint16(b[4:])) == kmsg.EndTxn {
		n.down = true
		if !n.seen {
			l.Conn.Close()
			return 0, errCut
		}
	}
	return l.Conn.Write(b)
}

func (l *link) Read(b []byte) (int, error) {
	k, err := l.Conn.Read(b)
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.n.down {
		return 0, errCut
	}
	return k, err
}
