package broker

import (
	"sync/atomic"
	"time"
)

// maxKey is above the keys of all requests served.
const maxKey = 96

// metrics counts what the broker does.
type metrics struct {
	connections  atomic.Int64 // open
	refused      atomic.Int64 // connections, for want of room
	authFailures atomic.Int64
	throttled    atomic.Int64 // requests
	requests     [maxKey]requestMetrics
}

type requestMetrics struct {
	count atomic.Int64
	nanos atomic.Int64 // in handlers, without waiting for a disk or for records
}

func (m *metrics) handled(key int16, d time.Duration) {
	r := &m.requests[key]
	r.count.Add(1)
	r.nanos.Add(int64(d))
}
