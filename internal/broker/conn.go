package broker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/wire"
)

const (
	// maxInFlight bounds the requests of one connection that wait for their answer.
	maxInFlight = 64
	// idleTimeout closes connections that send nothing (connections.max.idle.ms).
	idleTimeout = 10 * time.Minute
	// writeTimeout closes connections whose peer does not read.
	writeTimeout = 30 * time.Second
	// keepBuffer is the largest response buffer kept for the next response.
	keepBuffer = 1 << 20
)

// conn is one client's connection. Requests are taken in order and answered in order, as the protocol demands; one that
// waits, for a disk or for records, does not keep the next from being taken. The reader takes requests and answers
// what can be answered at once, the writer waits for the others.
type conn struct {
	b      *Broker
	nc     net.Conn
	local  bool   // over Dial: the client is in this process
	host   string // where the client is, for descriptions
	ctx    context.Context
	cancel context.CancelFunc
	queue  chan pending
	// waiting counts the requests in queue and the one the writer works on.
	waiting atomic.Int32
}

// pending is a request whose answer is due.
type pending struct {
	header wire.Header
	reply  reply
}

// request is a request as handlers see it.
type request struct {
	wire.Header
	conn *conn
}

// reply is what a handler returns: a response, a response to wait for, none, or the end of the connection.
type reply struct {
	resp kmsg.Response
	// wait returns the response; nil closes the connection. ctx ends with the connection.
	wait func(ctx context.Context) kmsg.Response
	// none is set for requests that ask for no response.
	none bool
}

// after answers once f is durable; at once if f is nil or already is.
func after(f *future, resp kmsg.Response) reply {
	if f == nil || f.ok() {
		return answer(resp)
	}
	return reply{wait: func(ctx context.Context) kmsg.Response {
		if !f.wait(ctx) {
			return nil
		}
		return resp
	}}
}

func answer(resp kmsg.Response) reply { return reply{resp: resp} }

func (b *Broker) serve(nc net.Conn, local bool) {
	ctx, cancel := context.WithCancel(b.ctx)
	c := &conn{b: b, nc: nc, local: local, host: "/in-process", ctx: ctx, cancel: cancel, queue: make(chan pending, maxInFlight)}
	if host, _, err := net.SplitHostPort(nc.RemoteAddr().String()); err == nil {
		c.host = "/" + host
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	defer cancel()
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.read()
	cancel()
	close(c.queue)
	writer.Wait()
	nc.Close()
}

// guard ends the connection if a handler panics: a bug must not take down the process the broker is embedded in.
func (c *conn) guard() {
	if p := recover(); p != nil {
		c.b.slog.Error("a request failed and its connection is closed: this is a bug", "client", c.host, "panic", p, "stack", string(debug.Stack()))
		c.cancel()
	}
}

func (c *conn) read() {
	defer c.guard()
	r := bufio.NewReaderSize(c.nc, 16<<10)
	var deadline time.Time
	for {
		// Moving the deadline costs a system call's worth; twice an idle timeout is often enough.
		if now := time.Now(); deadline.Sub(now) < idleTimeout/2 {
			deadline = now.Add(idleTimeout)
			if err := c.nc.SetReadDeadline(deadline); err != nil {
				return
			}
		}
		frame, err := wire.ReadFrame(r)
		if err != nil {
			c.logEnd(err)
			return
		}
		if !c.take(frame) {
			return
		}
	}
}

func (c *conn) logEnd(err error) {
	if err == io.EOF || c.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return
	}
	if errors.Is(err, wire.ErrMalformed) {
		c.b.slog.Warn("connection closed", "client", c.host, "err", err)
		return
	}
	c.b.slog.Debug("connection closed", "client", c.host, "err", err)
}

// take handles one request and reports whether the connection goes on.
func (c *conn) take(frame []byte) bool {
	h, body, err := wire.ParseHeader(frame)
	if err != nil {
		c.logEnd(err)
		return false
	}
	api, ok := c.b.apis[h.Key]
	if !ok {
		c.b.slog.Debug("connection closed: request not served", "client", c.host, "request", wire.Name(h.Key), "version", h.Version)
		return false
	}
	var rep reply
	if h.Version < api.min || h.Version > api.max || h.Version < api.servedMin {
		if h.Key != keyApiVersions {
			c.b.slog.Debug("connection closed: version not served", "client", c.host, "request", wire.Name(h.Key), "version", h.Version)
			return false
		}
		h.Version = 0
		rep = answer(c.b.unsupportedApiVersions())
	} else {
		if err := wire.Check(h.Key, h.Version, body); err != nil {
			c.logEnd(err)
			return false
		}
		q := kmsg.RequestForKey(h.Key)
		q.SetVersion(h.Version)
		if err := q.ReadFrom(body); err != nil {
			c.b.slog.Warn("connection closed: request does not decode", "client", c.host, "request", wire.Name(h.Key), "version", h.Version, "err", err)
			return false
		}
		rep = api.handle(&request{Header: h, conn: c}, q)
	}
	switch {
	case rep.none:
		return true
	case rep.resp != nil && c.waiting.Load() == 0:
		// Nobody is ahead, and only this goroutine puts anybody into the queue.
		return c.respond(h, rep.resp)
	case rep.resp == nil && rep.wait == nil:
		return false
	}
	c.waiting.Add(1)
	select {
	case c.queue <- pending{h, rep}:
		return true
	case <-c.ctx.Done():
		return false
	}
}

func (c *conn) write() {
	defer c.cancel()
	defer c.guard()
	for p := range c.queue {
		resp := p.reply.resp
		if resp == nil {
			resp = p.reply.wait(c.ctx)
		}
		if resp == nil || !c.respond(p.header, resp) {
			return
		}
		c.waiting.Add(-1)
	}
}

// respond encodes and sends a response. Reader and writer never send at the same time: the reader only while nothing is
// queued.
func (c *conn) respond(h wire.Header, resp kmsg.Response) bool {
	buf := c.b.buffers.get()
	c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	var err error
	if v, ok := resp.(vectored); ok {
		parts := v.buffers(h, buf)
		_, err = parts.WriteTo(c.nc)
		v.release()
	} else {
		*buf = wire.AppendResponseHeader((*buf)[:0], h)
		*buf = resp.AppendTo(*buf)
		wire.FinishResponse(*buf)
		_, err = c.nc.Write(*buf)
	}
	c.b.buffers.put(buf)
	if err != nil && c.ctx.Err() == nil {
		c.b.slog.Debug("connection closed", "client", c.host, "err", err)
	}
	return err == nil
}

// buffers keeps response buffers for the next response.
type buffers struct{ pool sync.Pool }

func (p *buffers) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func (p *buffers) put(b *[]byte) {
	if cap(*b) <= keepBuffer {
		p.pool.Put(b)
	}
}
