package table

import (
	"reflect"
	"time"

	"github.com/moldau/moldau/serde"
)

// cells is how values live in entries, as far as epochs are concerned.
type cells[C any] interface {
	// drop says that a cell is gone for good, release that bytes are which its successor does not have.
	drop(*C)
	release(C)
	// coded is whether values are kept as bytes.
	coded() bool
	// revert readies a cell for being overwritten by what it was before.
	revert(c *C, old C)
	// cool says that the decoded value may have been written to and is not that of the cell any more.
	cool(*C)
	// encode appends a cell's value. Where there is an encoding to keep, the cell keeps it from then on.
	encode(dst []byte, c *C) ([]byte, error)
	// hold readies a cell for view, and its value for being written through.
	hold(*C) error
	// load makes a cell of an encoded value.
	load(b []byte) (C, error)
	// compact gives back memory that is no longer in use, if it is much.
	compact(each func(f func(c *C, kept bool)))
	// rest is called when no decoded value is in use.
	rest()
	// memory is what values take up outside of entries, beside what one entry holds elsewhere, about.
	memory() int64
	beside() int64
}

// rep is the same with the values' type.
type rep[V, C any] interface {
	cells[C]
	// view is the value; it must not be written through but after hold.
	view(*C) (V, error)
	// own is a value that nobody else has.
	own(*C) (V, error)
	set(*C, V)
	decode([]byte) (V, error)
}

// shares reports whether a copy of a t shares memory that can be written: pointers, slices, maps, interfaces, but neither
// strings nor times.
func shares(t reflect.Type) bool {
	if t == reflect.TypeFor[time.Time]() {
		return false
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if shares(t.Field(i).Type) {
				return true
			}
		}
		return false
	case reflect.Array:
		return t.Len() > 0 && shares(t.Elem())
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return true
	}
	return false
}

// plain keeps values as they are.
type plain[V any] struct {
	serde   serde.Serde[V]
	strings bool // values hold strings, whose bytes lie elsewhere
	bytes   int64
	values  int64 // of which bytes is the encoded size
}

func newPlain[V any](v serde.Serde[V]) *plain[V] {
	return &plain[V]{serde: v, strings: !pointerFree(reflect.TypeFor[V]())}
}

// pointerFree is whether a t that shares nothing holds no strings either.
func pointerFree(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String:
		return false
	case reflect.Struct:
		for i := range t.NumField() {
			if !pointerFree(t.Field(i).Type) {
				return false
			}
		}
	case reflect.Array:
		return pointerFree(t.Elem())
	}
	return true
}

func (p *plain[V]) count(n int) {
	p.bytes += int64(n)
	p.values++
	if p.values == 1<<16 { // what is long ago counts less
		p.bytes, p.values = p.bytes/2, p.values/2
	}
}

// beside takes what values hold in strings to be as much as their encoding, on average.
func (p *plain[V]) beside() int64 {
	if !p.strings || p.values == 0 {
		return 0
	}
	return p.bytes / p.values
}

func (p *plain[V]) encode(dst []byte, c *V) ([]byte, error) {
	n := len(dst)
	dst, err := p.serde.Encode(dst, *c)
	p.count(len(dst) - n)
	return dst, err
}

func (p *plain[V]) load(b []byte) (V, error) {
	p.count(len(b))
	return p.serde.Decode(b)
}

func (p *plain[V]) drop(c *V) {
	var zero V
	*c = zero
}

func (*plain[V]) compact(func(func(*V, bool))) {}
func (*plain[V]) release(V)                    {}
func (*plain[V]) coded() bool                  { return false }
func (*plain[V]) revert(*V, V)                 {}
func (*plain[V]) cool(*V)                      {}
func (*plain[V]) rest()                        {}
func (*plain[V]) memory() int64                { return 0 }
func (*plain[V]) hold(*V) error                { return nil }
func (*plain[V]) view(c *V) (V, error)         { return *c, nil }
func (*plain[V]) own(c *V) (V, error)          { return *c, nil }
func (*plain[V]) set(c *V, v V)                { *c = v }
func (p *plain[V]) decode(b []byte) (V, error) { return p.serde.Decode(b) }

// cell is a value as its last encoding and, while hot, decoded as well.
type cell struct {
	off   uint64
	size  uint32 // noBytes: none since the last set
	hot   uint32 // place of the decoded value; valid if the stamps agree
	stamp uint32
}

const noBytes = ^uint32(0)

type decoded[V any] struct {
	v      V
	stamp  uint32 // from 1
	busy   bool   // in use
	pinned bool   // touched in this epoch: it may differ from every encoding
	recent bool
}

// coded keeps values that share memory as bytes, so that a function may write into what it is given: what was before is
// in the bytes.
type coded[V any] struct {
	serde  serde.Serde[V]
	bytes  slab
	hot    []decoded[V]
	free   []uint32
	pinned int
	hand   int
	worth  int64 // see the constant
	flat   bool  // a decoded value is its bytes: not worth being kept beside them
}

// restful is how many decoded values stay when nobody uses them.
const restful = 1 << 14

func (s *coded[V]) decodedOf(c *cell) *decoded[V] {
	if int(c.hot) < len(s.hot) {
		if d := &s.hot[c.hot]; d.busy && d.stamp == c.stamp {
			d.recent = true
			return d
		}
	}
	return nil
}

func (s *coded[V]) warm(c *cell, v V) *decoded[V] {
	var i uint32
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
	} else {
		i = uint32(len(s.hot))
		s.hot = append(s.hot, decoded[V]{stamp: 1})
	}
	d := &s.hot[i]
	d.v, d.busy, d.recent = v, true, true
	c.hot, c.stamp = i, d.stamp
	return d
}

func (s *coded[V]) view(c *cell) (V, error) {
	if d := s.decodedOf(c); d != nil {
		return d.v, nil
	}
	v, err := s.own(c)
	if err == nil {
		s.trim(2 * restful)
		s.warm(c, v)
	}
	return v, err
}

func (s *coded[V]) hold(c *cell) error {
	d := s.decodedOf(c)
	if d == nil {
		v, err := s.own(c)
		if err != nil {
			return err
		}
		d = s.warm(c, v)
	}
	s.pin(d)
	return nil
}

func (s *coded[V]) pin(d *decoded[V]) {
	if !d.pinned {
		d.pinned = true
		s.pinned++
	}
}

func (s *coded[V]) own(c *cell) (V, error) { return s.serde.Decode(s.bytes.get(c.off, int(c.size))) }

func (s *coded[V]) set(c *cell, v V) {
	d := s.decodedOf(c)
	if d == nil {
		d = s.warm(c, v)
	} else {
		d.v = v
	}
	s.pin(d)
	c.off, c.size = 0, noBytes // the undo log has the old bytes
}

func (s *coded[V]) encode(dst []byte, c *cell) ([]byte, error) {
	if c.size != noBytes {
		return append(dst, s.bytes.get(c.off, int(c.size))...), nil
	}
	d := s.decodedOf(c)
	n := len(dst)
	dst, err := s.serde.Encode(dst, d.v)
	if err != nil {
		return dst, err
	}
	c.off, c.size = s.bytes.put(dst[n:]), uint32(len(dst)-n)
	s.unpin(d)
	if s.flat {
		s.letGo(c.hot)
	}
	return dst, nil
}

func (s *coded[V]) unpin(d *decoded[V]) {
	if d.pinned {
		d.pinned = false
		s.pinned--
	}
}

func (s *coded[V]) load(b []byte) (cell, error) {
	return cell{off: s.bytes.put(b), size: uint32(len(b))}, nil
}

func (s *coded[V]) decode(b []byte) (V, error) { return s.serde.Decode(b) }

func (s *coded[V]) cool(c *cell) {
	if d := s.decodedOf(c); d != nil {
		s.letGo(c.hot)
	}
}

func (s *coded[V]) letGo(i uint32) {
	d := &s.hot[i]
	s.unpin(d)
	*d = decoded[V]{stamp: d.stamp + 1}
	s.free = append(s.free, i)
}

func (s *coded[V]) drop(c *cell) {
	s.cool(c)
	s.release(*c)
	*c = cell{}
}

func (s *coded[V]) release(c cell) {
	if c.size != noBytes && c.off != 0 {
		s.bytes.release(c.off, int(c.size))
	}
}

func (s *coded[V]) coded() bool { return true }
func (*coded[V]) beside() int64 { return 0 }

func (s *coded[V]) revert(c *cell, old cell) {
	if c.off == old.off {
		s.cool(c)
	} else {
		s.drop(c)
	}
}

func (s *coded[V]) compact(each func(func(*cell, bool))) {
	if s.bytes.held < s.worth || s.bytes.held < 2*s.bytes.used {
		return
	}
	old := s.bytes
	s.bytes = slab{}
	moved := map[uint64]uint64{}
	each(func(c *cell, kept bool) {
		if c.off == 0 || c.size == noBytes {
			return
		}
		to, ok := moved[c.off]
		if !ok {
			to = s.bytes.put(old.get(c.off, int(c.size)))
			if kept {
				moved[c.off] = to
			}
		}
		c.off = to
	})
}

func (s *coded[V]) rest() { s.trim(restful) }

// trim lets decoded values go, those not used lately first, until at most n are left besides the pinned.
func (s *coded[V]) trim(n int) {
	for over := len(s.hot) - len(s.free) - s.pinned - n; over > 0; {
		if s.hand >= len(s.hot) {
			s.hand = 0
		}
		d := &s.hot[s.hand]
		switch {
		case !d.busy || d.pinned:
		case d.recent:
			d.recent = false
		default:
			s.letGo(uint32(s.hand))
			over--
		}
		s.hand++
	}
}

// memory counts decoded values as twice their encoding, for want of a way to measure them.
func (s *coded[V]) memory() int64 {
	n := int64(len(s.hot)) * int64(reflect.TypeFor[decoded[V]]().Size())
	return s.bytes.used + n
}
