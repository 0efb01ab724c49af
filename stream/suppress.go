package stream

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// ErrBufferFull is what an application ends with if a buffer that FailWhenFull is over its bounds.
var ErrBufferFull = errors.New("a suppression buffer is full")

// Suppression says how long KTable.Suppress holds updates back, and how many.
type Suppression struct {
	wait    time.Duration
	records int
	bytes   int64
	full    fullness
}

type fullness int

const (
	spill fullness = iota
	emitEarly
	failWhenFull
)

// UntilTime holds the updates of a key back for d, counted in stream time from the first of them; later ones do not put it off
// (Suppressed.untilTimeLimit). By default a buffer has no bounds: what does not fit into memory lies on disk.
func UntilTime(d time.Duration) Suppression { return Suppression{wait: d} }

// MaxRecords bounds the number of keys that are held back. It needs EmitEarly or FailWhenFull.
func (s Suppression) MaxRecords(n int) Suppression { s.records = n; return s }

// MaxBytes bounds the size of what is held back: keys, values and headers, and some 30 bytes for each key. Without EmitEarly
// and FailWhenFull it bounds what stays in memory after a commit; the rest lies on disk.
func (s Suppression) MaxBytes(n int64) Suppression { s.bytes = n; return s }

// EmitEarly gives the oldest entries on when there are more than the bounds allow (BufferConfig.emitEarlyWhenFull).
func (s Suppression) EmitEarly() Suppression { s.full = emitEarly; return s }

// FailWhenFull ends the application when there are more than the bounds allow (BufferConfig.shutDownWhenFull).
func (s Suppression) FailWhenFull() Suppression { s.full = failWhenFull; return s }

// Validate names every mistake.
func (s Suppression) Validate() error {
	var errs []error
	if s.wait < 0 || s.wait%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("suppression: updates are held back for %v; it must not be negative, in whole milliseconds", s.wait))
	}
	if s.records < 0 || s.bytes < 0 {
		errs = append(errs, errors.New("suppression: a bound is negative; 0 is none"))
	}
	switch {
	case s.full == spill && s.records > 0:
		errs = append(errs, errors.New("suppression: MaxRecords says when a buffer is full, but not what to do then; add EmitEarly or FailWhenFull"))
	case s.full != spill && s.records == 0 && s.bytes == 0:
		errs = append(errs, errors.New("suppression: EmitEarly and FailWhenFull need MaxRecords or MaxBytes"))
	}
	return errors.Join(errs...)
}

// Suppress holds updates back: of each key only the last one goes on, when its time has come. Time is that of the updates that come
// here, of all keys; where nothing comes nothing goes on. An update has the time and the headers of its record.
//
// The table itself shows what has gone on.
func (t *KTable[K, V]) Suppress(h state.SuppressBuffer[K, V], s Suppression) *KTable[K, V] {
	at := where()
	if err := s.Validate(); err != nil {
		t.b.graph.Fail(topology.ErrConflict, at, "%v", err)
	}
	return &KTable[K, V]{suppress(t.rows, at, h.Spec(), h.Keys(), h.Values(), s, nil)}
}

// UntilClosed holds a window's updates back until it has closed: only its final result goes on, and none if it has been deleted
// (Suppressed.untilWindowCloses). Time is that of the updates that come here. As in Kafka Streams, the result of a session or
// sliding window goes on one millisecond before it takes no more records.
func (t *WindowedKTable[K, V]) UntilClosed(h state.WindowBuffer[K, V]) *WindowedKTable[K, V] {
	at := where()
	if t.closing == nil {
		t.b.graph.Fail(topology.ErrConflict, at, "UntilClosed needs a table that a windowed aggregate has made; nothing says when the windows of this one close")
		return t
	}
	keys := window.TimeKey(h.Keys(), t.closing.size)
	if t.closing.sessions {
		keys = window.SessionKey(h.Keys())
	}
	s := UntilTime(time.Duration(min(t.closing.grace, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond)
	return &WindowedKTable[K, V]{suppress(t.rows, at, h.Spec(), keys, h.Values(), s, func(k window.Key[K]) int64 { return k.End.UnixMilli() })}
}

// WindowTable is FlattenTable undone, for a table that only KTable has operators for, such as joins.
func WindowTable[K, V any](t *KTable[window.Key[K], V]) *WindowedKTable[K, V] {
	return &WindowedKTable[K, V]{t.rows}
}

// closing is how the windows of a table end.
type closing struct {
	size     time.Duration // of all windows; not of sessions
	sessions bool
	grace    int64 // ms from the end of a window until it closes
}

// or is how the windows of two joined tables end: with the later of both.
func (c *closing) or(o *closing) *closing {
	if c == nil || o != nil && o.grace > c.grace {
		return o
	}
	return c
}

// suppressor is a suppression at work in one task.
type suppressor[K, V any] struct {
	buffer *table.Holding
	node   int
	keys   serde.Serde[K]
	values serde.Serde[V]
	s      Suppression
	end    func(K) int64 // the end of a key's window; nil: until a time
	now    *int64
	down   tfn[K, V]
}

func suppress[K, V any](t rows[K, V], at string, h *flow.StoreSpec, keys serde.Serde[K], values serde.Serde[V], s Suppression, end func(K) int64) rows[K, V] {
	if t.past != nil {
		t.b.graph.Fail(topology.ErrStore, at, "a versioned table cannot be suppressed: its updates come out of order, and each of them counts")
	}
	t.wantOld() // for what the table shows meanwhile
	n := &topology.Node{Kind: "suppress", Parents: []*topology.Node{t.n}, Keyed: true, At: at}
	st := t.b.graph.Own(h, at, n)
	open := func(env flow.Env) *suppressor[K, V] {
		return &suppressor[K, V]{buffer: env.Store(st.Spec.Name).(*table.Holding), node: n.ID, keys: keys, values: values, s: s, end: end}
	}
	add(t.b, n, func(env flow.Env, down tfn[K, V]) (tfn[K, V], error) {
		p := open(env)
		p.down, p.now = down, env.Cell(st.Spec.Name+"@time", true)
		if s.full == spill {
			p.buffer.Limit(s.bytes)
		}
		env.Idle(n.ID, p.next, func(c *flow.Ctx) {
			c.Wrote = true
			*p.now = max(*p.now, c.StreamTime)
			p.drain(c)
		})
		return p.process, nil
	})
	d := t
	d.vague, d.tells = true, false
	d.n, d.stores, d.wantOld = n, append([]*topology.Store{st}, t.stores...), func() bool { return t.wantOld() }
	if t.view != nil {
		d.view = func(env flow.Env, told bool) getter[K, V] {
			p, get := open(env), t.view(env, told)
			return func(c *flow.Ctx, k K) (V, int64, bool) {
				v, at, ok, held := p.before(c, k)
				if held {
					return v, at, ok
				}
				return get(c, k)
			}
		}
	}
	return d
}

// process takes an update in, and gives on those whose time has come.
func (p *suppressor[K, V]) process(c *flow.Ctx, k K, ch change[V]) {
	c.Wrote = true
	*p.now = max(*p.now, c.Time)
	if err := p.hold(c, k, ch); err != nil {
		c.Break(p.node, err)
		return
	}
	p.drain(c)
}

// next is the stream time at which the first update is given on.
func (p *suppressor[K, V]) next() (at int64, ok bool, err error) {
	at, ok, err = p.buffer.Due()
	return at + p.s.wait.Milliseconds(), ok, err
}

// drain gives on the updates whose time has come, and those that there is no room for.
func (p *suppressor[K, V]) drain(c *flow.Ctx) {
	due := *p.now - p.s.wait.Milliseconds()
	for c.Err == nil {
		at, ok, err := p.buffer.Due()
		switch {
		case err != nil:
			c.Break(p.node, err)
			return
		case !ok || at > due && !(p.s.full == emitEarly && p.over()):
			if p.s.full == failWhenFull && p.over() {
				c.Fail(p.node, fmt.Errorf("%w: it holds %d keys (at most %d) and %d bytes (at most %d); 0 is any number",
					ErrBufferFull, p.buffer.Len(), p.s.records, p.buffer.Bytes(), p.s.bytes))
			}
			return
		}
		p.release(c)
	}
}

func (p *suppressor[K, V]) over() bool {
	return p.s.records > 0 && p.buffer.Len() > p.s.records || p.s.bytes > 0 && p.buffer.Bytes() > p.s.bytes
}

// hold puts an update into the buffer, in the place of an earlier one of its key.
func (p *suppressor[K, V]) hold(c *flow.Ctx, k K, ch change[V]) (err error) {
	key, err := p.keys.Encode(nil, k)
	if err != nil {
		return fmt.Errorf("encoding key %v: %w", k, err)
	}
	h := table.Held{Time: c.Time, Offset: c.Offset, Topic: c.Topic, Partition: c.Partition, Headers: c.Headers, Order: c.Time}
	if p.end != nil {
		h.Order = p.end(k)
	}
	if h.Old, err = p.encode(ch.Old, ch.WasLive); err == nil {
		h.New, err = p.encode(ch.New, ch.Live)
	}
	if err != nil {
		return fmt.Errorf("encoding the value of key %v: %w", k, err)
	}
	h.Prior = h.Old
	have, _, ok, err := p.buffer.Get(key)
	if err != nil {
		return err
	}
	if ok {
		was, err := table.ParseHeld(have)
		if err != nil {
			return err
		}
		h.Prior, h.Order = was.Prior, was.Order
	}
	return p.buffer.Put(key, h.Append(nil), c.Time)
}

func (p *suppressor[K, V]) encode(v V, live bool) ([]byte, error) {
	if !live {
		return nil, nil
	}
	return p.values.Encode([]byte{}, v)
}

func (p *suppressor[K, V]) decode(b []byte) (v V, live bool, err error) {
	if b == nil {
		return v, false, nil
	}
	v, err = p.values.Decode(b)
	return v, err == nil, err
}

// release gives on the first entry, as the record that it came with.
func (p *suppressor[K, V]) release(c *flow.Ctx) {
	key, value, _, _, err := p.buffer.First()
	if err != nil {
		c.Break(p.node, err)
		return
	}
	h, err := table.ParseHeld(value)
	if err != nil {
		c.Break(p.node, err)
		return
	}
	var ch change[V]
	k, err := p.keys.Decode(key)
	if err == nil {
		ch.Old, ch.WasLive, err = p.decode(h.Old)
	}
	if err == nil {
		ch.New, ch.Live, err = p.decode(h.New)
	}
	if err != nil {
		c.Break(p.node, fmt.Errorf("decoding what was held back of key %q: %w", key, err))
		return
	}
	if ch.Live || p.end == nil {
		was := *c
		c.Time, c.Headers, c.Topic, c.Partition, c.Offset, c.Input = h.Time, h.Headers, h.Topic, h.Partition, h.Offset, 0
		p.down(c, k, ch)
		c.Time, c.Headers, c.Topic, c.Partition, c.Offset, c.Input = was.Time, was.Headers, was.Topic, was.Partition, was.Offset, was.Input
	}
	if err := p.buffer.Remove(c.Time); err != nil {
		c.Break(p.node, err)
	}
}

// before is what the table shows of a key whose updates are held back: what was before the first of them.
func (p *suppressor[K, V]) before(c *flow.Ctx, k K) (v V, at int64, ok, held bool) {
	key, err := p.keys.Encode(nil, k)
	if err != nil {
		c.Break(p.node, err)
		return v, 0, false, true
	}
	value, _, held, err := p.buffer.Get(key)
	if err != nil {
		c.Break(p.node, err)
		return v, 0, false, true
	}
	if !held {
		return v, 0, false, false
	}
	h, err := table.ParseHeld(value)
	if err == nil {
		v, ok, err = p.decode(h.Prior)
	}
	if err != nil {
		c.Break(p.node, err)
	}
	return v, -1, ok, true
}
