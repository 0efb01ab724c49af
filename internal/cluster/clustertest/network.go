package clustertest

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
)

// Network is a dialer whose connections can fail. It is a Fault for clusters that speak Kafka's protocol, as long as the
// client writes each request in one piece.
type Network struct {
	// Next makes the connections; nil: TCP.
	Next func(ctx context.Context, network, addr string) (net.Conn, error)

	mu    sync.Mutex
	armed bool // at the end of a transaction
	seen  bool
	down  bool
}

var errCut = errors.New("connection cut by the test")

// endTxn is the key of the request in Kafka's protocol.
const endTxn = 26

// LoseEnd cuts the connections at the next request that ends a transaction.
func (n *Network) LoseEnd(seen bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed, n.seen = true, seen
}

// Cut ends all traffic now.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = true
}

// Heal lets new connections through.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed, n.down = false, false
}

// Dial has the form of kgo.Dialer.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	down := n.down
	n.mu.Unlock()
	if down {
		return nil, errCut
	}
	next := n.Next
	if next == nil {
		next = new(net.Dialer).DialContext
	}
	conn, err := next(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &link{Conn: conn, n: n}, nil
}

// link is one connection. After a cut it is of no use, even once the network is healed: what was on the way is lost.
type link struct {
	net.Conn
	n   *Network
	cut bool
}

func (l *link) Write(b []byte) (int, error) {
	n := l.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.lost() {
		return 0, errCut
	}
	if n.armed && len(b) > 6 && binary.BigEndian.Uint16(b[4:]) == endTxn {
		n.down, l.cut = true, true
		if !n.seen {
			return 0, errCut
		}
	}
	return l.Conn.Write(b)
}

func (l *link) Read(b []byte) (int, error) {
	k, err := l.Conn.Read(b)
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.lost() {
		return 0, errCut
	}
	return k, err
}

// lost is called with the network locked.
func (l *link) lost() bool {
	l.cut = l.cut || l.n.down
	return l.cut
}
