package broker

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/pipe"
)

// timedConn notes the deadlines that are set, and how much is written at most under one.
type timedConn struct {
	net.Conn
	mu          sync.Mutex
	read        time.Time
	since, most int
}

func (c *timedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.Conn.SetReadDeadline(t)
}

func (c *timedConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = 0
	return c.Conn.SetWriteDeadline(t)
}

func (c *timedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.since += len(b)
	c.most = max(c.most, c.since)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func dialTimed(t *testing.T, b *Broker) (*raw, *timedConn) {
	t.Helper()
	client, server := pipe.New()
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(30 * time.Second))
	timed := &timedConn{Conn: server}
	if !b.start(timed, nil) {
		t.Fatal("the broker is closed")
	}
	return &raw{t: t, nc: client, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("test"))}, timed
}

// A large response has as much time as it is long: over a slow line a reader would ask for it again and again.
func TestLargeResponsesHaveTime(t *testing.T) {
	b := start(t)
	w := dialRaw(t, b)
	id := w.createTopic("t", 1, "max.message.bytes", "10000000")
	for _, size := range []int{900_000, 3_000_000, 10, 900_000, 900_000} {
		w.produce(9, "", "t", 0, batch{-1, -1, -1, false, []string{strings.Repeat("x", size)}})
	}
	r, timed := dialTimed(t, b)
	q := fetchRequest(id, 0)
	q.MaxBytes, q.Topics[0].Partitions[0].PartitionMaxBytes = 10<<20, 10<<20
	resp := ask[*kmsg.FetchResponse](r, 18, q)
	if n := len(resp.Topics[0].Partitions[0].RecordBatches); n < 5_700_000 || n > 5_702_000 {
		t.Errorf("fetched %d bytes", n)
	}
	timed.mu.Lock()
	defer timed.mu.Unlock()
	if timed.most > 1<<20 {
		t.Errorf("%d bytes had the time of a megabyte", timed.most)
	}
}

// A connection is idle for as long as it is said, counted from its last request.
func TestIdleIsCountedFromTheLastRequest(t *testing.T) {
	b := start(t)
	r, timed := dialTimed(t, b)
	for range 3 {
		ask[*kmsg.ApiVersionsResponse](r, 0, &kmsg.ApiVersionsRequest{})
		asked := time.Now()
		ask[*kmsg.ApiVersionsResponse](r, 0, &kmsg.ApiVersionsRequest{})
		timed.mu.Lock()
		if left := timed.read.Sub(asked); left < idleTimeout {
			t.Errorf("it is closed %v after it was used", left)
		}
		timed.mu.Unlock()
	}
}
