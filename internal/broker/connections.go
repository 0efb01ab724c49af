package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/moldau/moldau/internal/broker/auth"
)

const (
	// maxDelay bounds how long a connection that comes too soon is kept waiting (quota.window.size.seconds).
	maxDelay = time.Second
	// maxDelayed bounds the connections of throttled addresses that are kept open; more are closed at once.
	maxDelayed = 1000
)

// limits bound the connections of listeners.
type limits struct {
	all       int
	rate      float64 // that come in a second
	perIP     int
	overrides map[string]int // by address
}

func (l limits) of(ip string) int {
	if most, ok := l.overrides[ip]; ok {
		return most
	}
	return l.perIP
}

// override is the bound of one host.
type override struct {
	host string
	most int
}

// parseOverrides reads max.connections.per.ip.overrides: HOST:COUNT, with commas between. The last colon divides, as addresses
// have colons too.
func parseOverrides(s string) ([]override, error) {
	var out []override
	var errs []error
	for _, part := range splitList(s) {
		colon := strings.LastIndexByte(part, ':')
		most, err := strconv.ParseInt(strings.TrimSpace(part[colon+1:]), 10, 32)
		if colon < 1 || err != nil || most < 0 {
			errs = append(errs, fmt.Errorf("%q is not HOST:COUNT", part))
			continue
		}
		out = append(out, override{strings.TrimSpace(part[:colon]), int(most)})
	}
	return out, errors.Join(errs...)
}

// resolveOverrides finds the addresses of hosts, and returns those that it finds.
func resolveOverrides(overrides []override) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	found := map[string]int{}
	var errs []error
	for _, o := range overrides {
		address, err := resolve(ctx, o.host)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found[address] = o.most
	}
	return found, errors.Join(errs...)
}

// resolveTimeout bounds how long all names of one request, or of a start, may take.
const resolveTimeout = 5 * time.Second

// resolve returns the address of a host as connections have it. Of a name with several it is, as in Java, the first of IPv4, or
// the first.
func resolve(ctx context.Context, host string) (string, error) {
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err == nil {
		return ip.Unmap().WithZone("").String(), nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", fmt.Errorf("%q is no address and no name of one: %w", host, err)
	}
	for _, ip := range ips {
		if ip.Unmap().Is4() {
			return ip.Unmap().String(), nil
		}
	}
	return ips[0].WithZone("").String(), nil
}

// seats counts the connections of listeners: all, by listener, by address, and how many come in a second. As in Kafka what
// all share is waited for, by whoever accepts, and what one address has too much of is refused. Guarded by Broker.serving.
type seats struct {
	limits  limits
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
	s.wake()
}

// wake has those who wait for room look again.
func (s *seats) wake() {
	close(s.freed)
	s.freed = make(chan struct{})
}

// admission waits until a connection that a listener has accepted may be served: until it does not come too soon after the
// others, and there is room. It returns false if the broker is closed.
func (b *Broker) admission(l *listener) bool {
	now := b.cfg.Now()
	b.serving.Lock()
	wait := max(b.seats.rate.Use(1, b.seats.limits.rate, now), l.rate.Use(1, rateOf(l.MaxConnectionCreationRate), now))
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
		full := b.seats.all >= b.seats.limits.all || l.MaxConnections > 0 && l.seats >= l.MaxConnections
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
	if b.seats.byIP[ip] >= b.seats.limits.of(ip) {
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
