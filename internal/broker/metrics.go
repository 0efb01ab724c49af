package broker

import (
	"bufio"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/moldau/moldau/internal/broker/txn"
	"github.com/moldau/moldau/internal/broker/wire"
)

// maxKey is above the keys of all requests served.
const maxKey = 96

// metrics counts what the broker does.
type metrics struct {
	connections  atomic.Int64 // open
	refused      atomic.Int64 // connections, their address has too many
	delayed      atomic.Int64 // connections that came too soon
	authFailures atomic.Int64
	throttled    atomic.Int64 // requests
	received     atomic.Int64 // bytes of requests
	sent         atomic.Int64 // bytes of responses
	requests     [maxKey]requestMetrics
}

type requestMetrics struct {
	count atomic.Int64
	nanos atomic.Int64 // in handlers, without waiting for a disk or for records
}

func (m *metrics) handled(r *request, d time.Duration) {
	m.received.Add(r.size)
	k := &m.requests[r.Key]
	k.count.Add(1)
	k.nanos.Add(int64(d))
}

// WriteMetrics writes what the broker counts in the text format of Prometheus.
func (b *Broker) WriteMetrics(w io.Writer) error {
	out := bufio.NewWriter(w)
	one := func(name, typ, help string, v int64) {
		fmt.Fprintf(out, "# HELP moldau_broker_%s %s\n# TYPE moldau_broker_%s %s\nmoldau_broker_%s %d\n", name, help, name, typ, name, v)
	}
	m := &b.metrics
	one("connections", "gauge", "Connections that are open.", m.connections.Load())
	one("connections_refused_total", "counter", "Connections of addresses that have too many.", m.refused.Load())
	one("connections_delayed_total", "counter", "Connections that came faster than a limit allows.", m.delayed.Load())
	one("authentication_failures_total", "counter", "Clients that could not prove who they are.", m.authFailures.Load())
	one("throttled_requests_total", "counter", "Requests of clients above a quota.", m.throttled.Load())
	one("received_bytes_total", "counter", "Bytes of requests.", m.received.Load())
	one("sent_bytes_total", "counter", "Bytes of responses.", m.sent.Load())
	topics := b.catalog.all()
	partitions, bytes := 0, int64(0)
	for _, t := range topics {
		partitions += len(t.partitions)
		for _, p := range t.partitions {
			bytes += p.Size()
		}
	}
	one("topics", "gauge", "Topics.", int64(len(topics)))
	one("partitions", "gauge", "Partitions.", int64(partitions))
	one("log_bytes", "gauge", "Bytes of all partitions.", bytes)
	one("groups", "gauge", "Consumer groups.", int64(len(b.groups.all())))
	open := 0
	ids := b.txns.all()
	for _, e := range ids {
		e.mu.Lock()
		if e.state.State() == txn.Ongoing {
			open++
		}
		e.mu.Unlock()
	}
	one("transactional_ids", "gauge", "Transactional ids that are known.", int64(len(ids)))
	one("open_transactions", "gauge", "Transactions that are open.", int64(open))
	fmt.Fprint(out, "# HELP moldau_broker_requests_total Requests, by kind.\n# TYPE moldau_broker_requests_total counter\n")
	for key := range m.requests {
		if n := m.requests[key].count.Load(); n > 0 {
			fmt.Fprintf(out, "moldau_broker_requests_total{request=%q} %d\n", wire.Name(int16(key)), n)
		}
	}
	fmt.Fprint(out, "# HELP moldau_broker_request_seconds_total Time in handlers, without waiting, by kind.\n# TYPE moldau_broker_request_seconds_total counter\n")
	for key := range m.requests {
		if r := &m.requests[key]; r.count.Load() > 0 {
			fmt.Fprintf(out, "moldau_broker_request_seconds_total{request=%q} %g\n", wire.Name(int16(key)), time.Duration(r.nanos.Load()).Seconds())
		}
	}
	return out.Flush()
}
