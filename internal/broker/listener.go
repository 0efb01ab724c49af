package broker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/moldau/moldau/internal/broker/auth"
)

// Listener is an address that clients connect to, and what is demanded of them there.
type Listener struct {
	// Address is the TCP address to listen on; port 0 picks a free one.
	Address string
	// Advertise is the host:port that clients of this listener are told to connect to (advertised.listeners). Default: the
	// address listened on. It is required where that is not an address a client could use, such as 0.0.0.0.
	Advertise string
	// TLS encrypts; nil: plaintext.
	TLS *TLS
	// SASL are the mechanisms by which a client must say who it is (sasl.enabled.mechanisms). None: it need not.
	SASL []auth.Mechanism
	// MaxConnections bounds its connections, and MaxConnectionCreationRate how many it takes in a second (max.connections and
	// max.connection.creation.rate behind listener.name.NAME); 0: as the broker's. What is more waits.
	MaxConnections, MaxConnectionCreationRate int
}

// authenticates says whether a listener knows who its clients are.
func (l Listener) authenticates() bool {
	return len(l.SASL) > 0 || l.TLS != nil && l.TLS.ClientCA != "" && !l.TLS.ClientOptional
}

// loopback says whether only this machine reaches an address.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// check reports every mistake.
func (l Listener) check(c Config, bad func(format string, args ...any)) {
	host, _, err := net.SplitHostPort(l.Address)
	ip := net.ParseIP(host)
	switch {
	case err != nil:
		bad("Listeners: %q is no host:port: %v", l.Address, err)
	case l.Advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()):
		bad("Listeners: %q accepts connections on every address, so clients cannot be told which one to use; set Advertise to the host:port they reach this machine at, or listen on one address", l.Address)
	}
	if l.Advertise != "" {
		if host, port, err := splitHostPort(l.Advertise); err != nil || host == "" || port == 0 {
			bad("Listeners: Advertise %q is no host:port that a client could connect to", l.Advertise)
		}
	}
	if err == nil && !loopback(host) && !c.OpenToNetwork && (l.TLS == nil || !l.authenticates()) {
		bad("Listeners: %q can be reached from other machines, but without TLS and authentication whoever reaches it may read and delete everything; give it both, listen on 127.0.0.1, or set OpenToNetwork (-insecure-open-to-network) if something else keeps strangers out", l.Address)
	}
	if l.TLS != nil {
		l.TLS.check(bad)
	}
	if l.MaxConnections < 0 || l.MaxConnectionCreationRate < 0 {
		bad("Listeners: %q bounds its connections by %d and %d a second; a bound is above 0, and 0 is none", l.Address, l.MaxConnections, l.MaxConnectionCreationRate)
	}
	for _, m := range l.SASL {
		switch {
		case !slices.Contains(auth.Mechanisms(), m):
			bad("Listeners: unknown SASL mechanism %q; there are %v", m, auth.Mechanisms())
		case m == auth.OAuthBearer && c.OAuth == nil:
			bad("Listeners: %s needs OAuth, which says whose tokens are believed", m)
		}
	}
}

// String describes a listener as Kafka's security protocols do.
func (l Listener) String() string {
	switch {
	case l.TLS != nil && len(l.SASL) > 0:
		return "SASL_SSL"
	case l.TLS != nil:
		return "SSL"
	case len(l.SASL) > 0:
		return "SASL_PLAINTEXT"
	}
	return "PLAINTEXT"
}

// listener is a Listener that is open.
type listener struct {
	Listener
	listening net.Listener
	tls       *tls.Config // nil: plaintext
	host      string      // what its clients are told to connect to
	port      int32
	// names turns clients' certificates into principals.
	names auth.Names

	// Guarded by Broker.serving.
	seats int // its connections
	rate  auth.Meter
}

// listen opens a listener.
func listen(l Listener, logger *slog.Logger) (*listener, error) {
	open := &listener{Listener: l}
	if l.TLS != nil {
		var err error
		if open.names, err = auth.ParseNames(l.TLS.PrincipalRules); err != nil {
			return nil, fmt.Errorf("broker: %w", err)
		}
		if open.tls, err = l.TLS.config(time.Now, logger); err != nil {
			return nil, fmt.Errorf("broker: %w", err)
		}
	}
	nl, err := net.Listen("tcp", l.Address)
	if err != nil {
		return nil, fmt.Errorf("broker: cannot listen on %s: %w; stop whatever listens there, or choose another address (port 0 takes a free one)", l.Address, err)
	}
	open.listening = nl
	advertise := l.Advertise
	if advertise == "" {
		advertise = nl.Addr().String()
		// A name stays a name: certificates and other machines know it by that.
		if host, _, err := net.SplitHostPort(l.Address); err == nil && host != "" && net.ParseIP(host) == nil {
			advertise = net.JoinHostPort(host, fmt.Sprint(nl.Addr().(*net.TCPAddr).Port))
		}
	}
	if open.host, open.port, err = splitHostPort(advertise); err != nil {
		nl.Close()
		return nil, fmt.Errorf("broker: advertised address %q: %w", advertise, err)
	}
	return open, nil
}

// accept serves the connections of a listener until the broker is closed.
func (b *Broker) accept(l *listener) {
	for {
		nc, err := l.listening.Accept()
		if err != nil {
			if b.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: others will close theirs.
			b.slog.Warn("cannot accept a connection", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-b.ctx.Done():
				return
			}
		}
		if !b.admission(l) || !b.start(nc, l) {
			nc.Close()
		}
	}
}

// hostOf returns the address of a client without its port.
func hostOf(nc net.Conn) string {
	host, _, err := net.SplitHostPort(nc.RemoteAddr().String())
	if err != nil {
		return ""
	}
	host, _, _ = strings.Cut(host, "%")
	return host
}
