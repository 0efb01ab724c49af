// Package pipe connects a client and a server in one process: a buffered connection with deadlines, as net.Conn knows
// them, an order of magnitude faster than loopback TCP.
package pipe

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	firstSize = 4 << 10
	// maxSize bounds what one direction buffers; a writer with more waits for the reader.
	maxSize = 1 << 20
)

// Addr is the address of both ends of a Pipe.
type Addr struct{}

func (Addr) Network() string { return "pipe" }
func (Addr) String() string  { return "in-process" }

// New returns the two ends of a connection.
func New() (client, server net.Conn) {
	a, b := newStream(), newStream()
	return &conn{in: a, out: b}, &conn{in: b, out: a}
}

type conn struct {
	in, out *stream
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *conn) Close() error {
	c.in.closeReader()
	c.out.closeWriter()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return Addr{} }
func (c *conn) RemoteAddr() net.Addr { return Addr{} }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.reader.set(c.in, t)
	c.out.writer.set(c.out, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.reader.set(c.in, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.writer.set(c.out, t)
	return nil
}

// stream is one direction: a ring of bytes that grows up to maxSize.
type stream struct {
	mu           sync.Mutex
	changed      sync.Cond // something to read, room to write, an end or a deadline
	ring         []byte
	start, n     int
	readerClosed bool
	writerClosed bool
	reader       deadline
	writer       deadline
	waiting      int
}

func newStream() *stream {
	s := &stream{}
	s.changed.L = &s.mu
	return s
}

// deadline belongs to one end of a stream; the stream's lock guards it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(s *stream, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.at = t
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	// A timer is only needed to wake somebody: who comes later looks at the clock.
	if s.waiting > 0 {
		s.changed.Broadcast()
	}
}

// wait waits for a change, at most until the deadline. The lock is held.
func (s *stream) wait(d *deadline) {
	if !d.at.IsZero() && d.timer == nil {
		d.timer = time.AfterFunc(time.Until(d.at), func() {
			s.mu.Lock()
			d.timer = nil
			s.changed.Broadcast()
			s.mu.Unlock()
		})
	}
	s.waiting++
	s.changed.Wait()
	s.waiting--
}

func (s *stream) wake() {
	if s.waiting > 0 {
		s.changed.Broadcast()
	}
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readerClosed:
			return 0, io.ErrClosedPipe
		case s.reader.passed():
			return 0, os.ErrDeadlineExceeded
		case s.n > 0:
			n := copy(p, s.ring[s.start:min(s.start+s.n, len(s.ring))])
			if n < len(p) && n < s.n {
				n += copy(p[n:], s.ring[:s.n-n])
			}
			s.start = (s.start + n) % len(s.ring)
			if s.n -= n; s.n == 0 {
				s.start = 0
			}
			s.wake()
			return n, nil
		case s.writerClosed:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		s.wait(&s.reader)
	}
}

// errBroken is what a writer gets whose reader is gone.
var errBroken = &net.OpError{Op: "write", Net: "pipe", Err: errors.New("the other end is closed")}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	for {
		switch {
		case s.writerClosed:
			return written, io.ErrClosedPipe
		case s.readerClosed:
			return written, errBroken
		case s.writer.passed():
			return written, os.ErrDeadlineExceeded
		}
		s.grow(s.n + len(p))
		if room := len(s.ring) - s.n; room > 0 && len(p) > 0 {
			end := (s.start + s.n) % len(s.ring)
			n := copy(s.ring[end:min(end+room, len(s.ring))], p)
			if n < len(p) && n < room {
				n += copy(s.ring[:room-n], p[n:])
			}
			s.n += n
			written += n
			p = p[n:]
			s.wake()
		}
		if len(p) == 0 {
			return written, nil
		}
		s.wait(&s.writer)
	}
}

// grow makes room for n bytes in all, within the maximum.
func (s *stream) grow(n int) {
	n = min(n, maxSize)
	if n <= len(s.ring) {
		return
	}
	size := max(firstSize, 2*len(s.ring))
	for size < n {
		size *= 2
	}
	ring := make([]byte, size)
	k := copy(ring, s.ring[s.start:min(s.start+s.n, len(s.ring))])
	copy(ring[k:], s.ring[:s.n-k])
	s.ring, s.start = ring, 0
}

func (s *stream) closeReader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readerClosed = true
	s.end(&s.reader)
}

func (s *stream) closeWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writerClosed = true
	s.end(&s.writer)
}

func (s *stream) end(d *deadline) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	s.changed.Broadcast()
}
