package broker

import (
	"net"
	"time"

	"github.com/moldau/moldau/internal/broker/auth"
)

const (
	// maxDelay bounds how long a connection that comes too soon is kept waiting (quota.window.size.seconds).
	maxDelay = time.Second
	// maxDelayed bounds the connections of throttled addresses that are kept open; more are closed at once.
	maxDelayed = 1000
)

// seats counts the connections of listeners: all, by listener, by address, and how many come in a second. As in Kafka what
// all share is waited for, by whoever accepts, and what one address has too much of is refused. Guarded by Broker.serving.
type seats struct {
	all     int
	byIP    map[string]int
	rate    auth.Meter
	delayed int
	freed   chan struct{} // closed and replaced when a connection ends
}

func newSeats() seats { return seats{byIP: map[string]int{}, freed: make(chan struct{})} }

func (s *seats) leave(ip string, l *listener) {
	s.all--
	l.seats--
	if s.byIP[ip]--; s.byIP[ip] == 0 {
		delete(s.byIP, ip)
	}
	close(s.freed)
	s.freed = make(chan struct{})
}

// admission waits until a connection that a listener has accepted may be served: until it does not come too soon after the
// others, and there is room. It returns false if the broker is closed.
func (b *Broker) admission(l *listener) bool {
	now := b.cfg.Now()
	b.serving.Lock()
	wait := max(b.seats.rate.Use(1, rateOf(b.cfg.MaxConnectionCreationRate), now), l.rate.Use(1, rateOf(l.MaxConnectionCreationRate), now))
	b.serving.Unlock()
	if wait > 0 {
		b.metrics.delayed.Add(1)
		select {
		case <-time.After(min(wait, maxDelay)):
		case <-b.ctx.Done():
			return false
		}
	}
	for {
		b.serving.Lock()
		full := b.seats.all >= b.cfg.MaxConnections || l.MaxConnections > 0 && l.seats >= l.MaxConnections
		freed := b.seats.freed
		b.serving.Unlock()
		if !full {
			return true
		}
		select {
		case <-freed:
		case <-b.ctx.Done():
			return false
		}
	}
}

// rateOf returns what a rate of 0, which is none, allows.
func rateOf(n int) float64 {
	if n == 0 {
		return unboundedConnections
	}
	return float64(n)
}

// unboundedConnections is Kafka's default of limits of connections.
const unboundedConnections = 1<<31 - 1

// seat gives an admitted connection its place, and serves it, unless its address has too many. With b.serving held.
func (b *Broker) seat(nc net.Conn, l *listener) bool {
	ip := hostOf(nc)
	now := b.cfg.Now()
	if wait := b.security.quotas.Connect(ip, now); wait > 0 {
		// Others are not to wait for it.
		b.seats.rate.Use(-1, unboundedConnections, now)
		l.rate.Use(-1, unboundedConnections, now)
		b.metrics.delayed.Add(1)
		if b.seats.delayed >= maxDelayed {
			return false
		}
		b.seats.delayed++
		// A client that is cut off at once would come back at once.
		b.running.Go(func() {
			select {
			case <-time.After(min(wait, maxDelay)):
			case <-b.ctx.Done():
			}
			nc.Close()
			b.serving.Lock()
			defer b.serving.Unlock()
			b.seats.delayed--
		})
		return true
	}
	if most := b.cfg.MaxConnectionsPerIP; most > 0 && b.seats.byIP[ip] >= most {
		b.metrics.refused.Add(1)
		b.slog.Debug("connection refused: its address has too many", "client", ip)
		return false
	}
	b.seats.all++
	l.seats++
	b.seats.byIP[ip]++
	b.running.Go(func() {
		b.serve(nc, l)
		b.serving.Lock()
		defer b.serving.Unlock()
		b.seats.leave(ip, l)
	})
	return true
}
