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

	"github.com/moldau/moldau/internal/broker/auth"
	"github.com/moldau/moldau/internal/broker/wire"
)

const (
	// maxInFlight bounds the requests of one connection that wait for their answer.
	maxInFlight = 64
	// idleTimeout closes connections that send nothing (connections.max.idle.ms).
	idleTimeout = 10 * time.Minute
	// writeTimeout closes connections whose peer does not read: so much time has each megabyte of an answer, or part of one.
	writeTimeout = 30 * time.Second
	writeStep    = 1 << 20
	// frameTimeout closes connections that send a request by drops: so much time has each megabyte, or part of one.
	frameTimeout = 30 * time.Second
	// keepBuffer is the largest response buffer kept for the next response.
	keepBuffer = 1 << 20
)

// conn is one client's connection. Requests are taken in order and answered in order, as the protocol demands; one that
// waits, for a disk or for records, does not keep the next from being taken. The reader takes requests and answers
// what can be answered at once, the writer waits for the others.
type conn struct {
	b        *Broker
	nc       net.Conn
	listener *listener // nil: over Dial, the client is in this process
	host     string    // where the client is, as descriptions show it: an address behind a slash
	ctx      context.Context
	cancel   context.CancelFunc
	queue    chan pending
	// waiting counts the requests in queue and the one the writer works on.
	waiting atomic.Int32
	id      identity
	// muted is until when, in nanoseconds, no request is read: the client has used up a quota.
	muted atomic.Int64
}

// errSpent ends the reading of a frame with the connection.
var errSpent = errors.New("the connection ends")

// pending is a request whose answer is due.
type pending struct {
	request *request
	reply   reply
}

// request is a request as handlers see it.
type request struct {
	wire.Header
	conn      *conn
	principal string // who asks
	size      int64  // of the frame, in bytes
	held      int64  // what it holds of the budget until it is answered
	// frame is what it was read into. A handler that knows when its bytes are no longer used releases it.
	frame *wire.Buffer
}

// reply is what a handler returns: a response, a response to wait for, none, or the end of the connection.
type reply struct {
	resp kmsg.Response
	// wait returns the response; nil closes the connection. ctx ends with the connection.
	wait func(ctx context.Context) kmsg.Response
	// none is set for requests that ask for no response: it is waited for all the same, and then not sent. last is set for a
	// response that the connection ends with.
	none, last bool
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

func (b *Broker) serve(nc net.Conn, l *listener) {
	ctx, cancel := context.WithCancel(b.ctx)
	c := &conn{b: b, nc: nc, listener: l, host: "/in-process", ctx: ctx, cancel: cancel, queue: make(chan pending, maxInFlight)}
	if l != nil {
		c.host = "/" + hostOf(nc)
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	defer cancel()
	b.metrics.connections.Add(1)
	defer b.metrics.connections.Add(-1)
	if !c.greet() {
		nc.Close()
		return
	}
	var writer sync.WaitGroup
	writer.Go(c.write)
	c.read()
	cancel()
	close(c.queue)
	writer.Wait()
	nc.Close()
}

// greet does what comes before the first request, and reports whether there may be one.
func (c *conn) greet() bool {
	defer c.guard()
	if err := c.identify(); err != nil {
		c.b.slog.Warn("connection refused", "client", c.host, "err", err)
		c.b.metrics.authFailures.Add(1)
		return false
	}
	return true
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
	var part share
	defer func() { c.b.budget.give(part.held) }()
	var deadline time.Time
	reserve := func(n int) error {
		if !c.b.budget.take(c.ctx, &part, int64(n)) {
			return errSpent
		}
		if n > r.Buffered()+wire.KeySize && c.id.known {
			// What has begun may not come slowly: others want the memory.
			deadline = time.Now().Add(frameTimeout)
			return c.nc.SetReadDeadline(deadline)
		}
		return nil
	}
	for {
		if !c.unmuted() {
			return
		}
		// Moving the deadline costs a system call's worth: it is set further off than it must be. Who has not said who it is gets
		// no more time for sending something.
		timeout, most := idleTimeout+idleTimeout/2, wire.MaxProduceFrame
		if !c.id.known {
			timeout, most = authTimeout, wire.MaxUnknownFrame
		}
		if now := time.Now(); deadline.IsZero() || c.id.known && deadline.Sub(now) < idleTimeout {
			deadline = now.Add(timeout)
			if err := c.nc.SetReadDeadline(deadline); err != nil {
				return
			}
		}
		frame, err := wire.ReadFrame(r, most, &c.b.frames, reserve)
		c.b.budget.read(&part)
		if err != nil {
			c.logEnd(err)
			return
		}
		ok := c.take(frame, &part.held)
		c.b.budget.give(part.held)
		if part.held = 0; !ok {
			return
		}
	}
}

// mute lets no request be read for a while.
func (c *conn) mute(d time.Duration) {
	until := time.Now().Add(d).UnixNano()
	for {
		now := c.muted.Load()
		if now >= until || c.muted.CompareAndSwap(now, until) {
			return
		}
	}
}

// unmuted waits until requests may be read again. It returns false if the connection ends.
func (c *conn) unmuted() bool {
	until := c.muted.Load()
	if until == 0 {
		return true
	}
	if wait := time.Until(time.Unix(0, until)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-c.ctx.Done():
			return false
		}
	}
	c.muted.CompareAndSwap(until, 0)
	return true
}

func (c *conn) logEnd(err error) {
	if err == io.EOF || err == errSpent || c.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
		return
	}
	if errors.Is(err, wire.ErrMalformed) {
		c.b.slog.Warn("connection closed", "client", c.host, "err", err)
		return
	}
	c.b.slog.Debug("connection closed", "client", c.host, "err", err)
}

// take handles one request and reports whether the connection goes on. held is what the frame holds of the budget; a
// request that waits for its answer takes it over if its bytes are still in use.
func (c *conn) take(frame *wire.Buffer, held *int64) bool {
	h, body, err := wire.ParseHeader(frame.B)
	if err != nil {
		c.logEnd(err)
		return false
	}
	api, ok := c.b.apis[h.Key]
	if !ok {
		c.b.slog.Debug("connection closed: request not served", "client", c.host, "request", wire.Name(h.Key), "version", h.Version)
		return false
	}
	if !c.mayAsk(h.Key, c.b.cfg.Now()) {
		c.b.slog.Warn("connection closed: a client that has not authenticated asks for more", "client", c.host, "request", wire.Name(h.Key))
		return false
	}
	r := &request{Header: h, conn: c, principal: c.id.principal, size: int64(len(frame.B)), frame: frame}
	began := time.Now()
	var rep reply
	if h.Version < api.min || h.Version > api.max || h.Version < api.servedMin {
		if h.Key != keyApiVersions {
			c.b.slog.Debug("connection closed: version not served", "client", c.host, "request", wire.Name(h.Key), "version", h.Version)
			return false
		}
		r.Version = 0
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
		rep = api.handle(r, q)
	}
	c.b.metrics.handled(r, time.Since(began))
	switch {
	case rep.none && rep.wait == nil:
		return true
	case rep.resp != nil && c.waiting.Load() == 0:
		// Nobody is ahead, and only this goroutine puts anybody into the queue.
		return c.respond(r, rep.resp, began)
	case rep.resp == nil && rep.wait == nil:
		return false
	}
	if h.Key == keyProduce {
		// The log works with the frame's bytes. Those of other requests are not used any more.
		r.held, *held = *held, 0
	}
	c.waiting.Add(1)
	select {
	case c.queue <- pending{r, rep}:
	case <-c.ctx.Done():
		c.b.budget.give(r.held)
		return false
	}
	if rep.last {
		<-c.ctx.Done()
	}
	return !rep.last
}

func (c *conn) write() {
	defer c.cancel()
	defer c.guard()
	for p := range c.queue {
		resp := p.reply.resp
		began := time.Now()
		if resp == nil {
			resp = p.reply.wait(c.ctx)
			began = time.Now() // waiting costs nothing
		}
		ok := resp != nil && (p.reply.none || c.respond(p.request, resp, began))
		c.b.budget.give(p.request.held)
		if !ok || p.reply.last {
			// What the queue still holds is never answered, but holds no memory either.
			c.cancel()
			for p := range c.queue {
				c.b.budget.give(p.request.held)
			}
			return
		}
		c.waiting.Add(-1)
	}
}

// respond encodes and sends a response. Reader and writer never send at the same time: the reader only while nothing is
// queued.
func (c *conn) respond(r *request, resp kmsg.Response, began time.Time) bool {
	h := r.Header
	r.throttle(resp, auth.RequestPercentage, 100*time.Since(began).Seconds())
	buf := c.b.buffers.get()
	var err error
	if v, ok := resp.(vectored); ok {
		err = c.sendParts(v.buffers(h, buf))
		v.release()
	} else {
		*buf = wire.AppendResponseHeader((*buf)[:0], h)
		*buf = resp.AppendTo(*buf)
		wire.FinishResponse(*buf)
		err = c.send(*buf)
	}
	c.b.buffers.put(buf)
	if err != nil && c.ctx.Err() == nil {
		c.b.slog.Debug("connection closed", "client", c.host, "err", err)
	}
	return err == nil
}

// send sends a response, or part of one, step by step.
func (c *conn) send(b []byte) error {
	for len(b) > 0 {
		c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		n, err := c.nc.Write(b[:min(len(b), writeStep)])
		c.b.metrics.sent.Add(int64(n))
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// sendParts sends the parts of a response, as many at once as make a step.
func (c *conn) sendParts(parts net.Buffers) error {
	for len(parts) > 0 {
		n, room := 0, writeStep
		for n < len(parts) && len(parts[n]) <= room {
			room -= len(parts[n])
			n++
		}
		if n == 0 {
			if err := c.send(parts[0]); err != nil {
				return err
			}
			parts = parts[1:]
			continue
		}
		step := parts[:n]
		parts = parts[n:]
		c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		sent, err := step.WriteTo(c.nc)
		c.b.metrics.sent.Add(sent)
		if err != nil {
			return err
		}
	}
	return nil
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
