package table

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/btree"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Holding is a key-value store of bytes whose entries also lie in the order of a time, then of key bytes. The time is the last 8
// bytes of a value, big endian, as in the changelogs of Kafka Streams' suppression buffers.
//
// Keys and times are in memory, all of them; values go down to the tier as any store's do.
type Holding struct {
	kv[[]byte, []byte]
	env   flow.StoreEnv
	order *btree.BTreeG[place] // nil: to be made again from the entries
	bytes int64
	limit int64 // of bytes that are to stay in memory; 0: none
	size  func(key, value []byte) int64
}

// place is an entry in the order.
type place struct {
	at   int64
	key  string
	size int64
}

func before(a, b place) bool {
	return a.at < b.at || a.at == b.at && a.key < b.key
}

// NewHolding makes the store of one task. size is what an entry counts for.
func NewHolding(env flow.StoreEnv, size func(key, value []byte) int64) (*Holding, error) {
	kv, err := NewKV[[]byte, []byte](env, serde.Bytes, serde.Bytes)
	if err != nil {
		return nil, err
	}
	return &Holding{kv: kv.kv, env: env, size: size}, nil
}

// Limit is how many bytes are to stay in memory; what is above goes down to the tier after each commit.
func (h *Holding) Limit(bytes int64) { h.limit = bytes }

// Len and Bytes are how much there is, in memory or below.
func (h *Holding) Len() int     { return h.order.Len() }
func (h *Holding) Bytes() int64 { return h.bytes }

// ready makes the order if there is none.
func (h *Holding) ready() error {
	if h.order != nil {
		return nil
	}
	order, bytes := btree.NewG(32, before), int64(0)
	var bad error
	err := h.Range(nil, nil, func(k, v []byte, _ int64) bool {
		if len(v) < 8 {
			bad = ErrDamaged
			return false
		}
		p := h.place(k, v)
		bytes += p.size
		order.ReplaceOrInsert(p)
		return true
	})
	if err = cmp.Or(err, bad); err == nil {
		h.order, h.bytes = order, bytes
	}
	return err
}

func (h *Holding) place(key, value []byte) place {
	return place{int64(binary.BigEndian.Uint64(value[len(value)-8:])), string(key), h.size(key, value)}
}

// Put sets an entry. If there is one already, the time must be its own.
func (h *Holding) Put(key, value []byte, recordTime int64) error {
	if err := h.ready(); err != nil {
		return err
	}
	ref, err := h.Touch(key)
	if err != nil {
		return err
	}
	h.Set(ref, value, recordTime, nil)
	p := h.place(key, value)
	old, _ := h.order.ReplaceOrInsert(p)
	h.bytes += p.size - old.size
	return nil
}

// Remove takes away the first entry.
func (h *Holding) Remove(recordTime int64) error {
	p, ok := h.order.Min()
	if !ok {
		panic("an entry is taken out of a buffer that is empty")
	}
	ref, err := h.Touch([]byte(p.key))
	if err != nil {
		return err
	}
	h.Unset(ref, recordTime, nil)
	h.order.DeleteMin()
	h.bytes -= p.size
	return nil
}

// First is the first entry in the order; !ok: there is none. The value must not be written through.
func (h *Holding) First() (key, value []byte, at int64, ok bool, err error) {
	at, ok, err = h.Due()
	if err != nil || !ok {
		return nil, nil, 0, false, err
	}
	p, _ := h.order.Min()
	key = []byte(p.key)
	value, _, ok, err = h.Get(key)
	return key, value, at, ok, err
}

// Due is the time of the first entry.
func (h *Holding) Due() (at int64, ok bool, err error) {
	if err := h.ready(); err != nil {
		return 0, false, err
	}
	p, ok := h.order.Min()
	return p.at, ok, nil
}

// Undo: see flow.Store.
func (h *Holding) Undo(epoch uint32) error {
	h.order = nil
	return h.kv.Undo(epoch)
}

// Restore: see flow.Store. What older versions of Kafka Streams have written becomes what this one writes.
func (h *Holding) Restore(records []flow.In, next int64) error {
	h.order = nil
	if !slices.ContainsFunc(records, func(r flow.In) bool { return heldFormat(&r) != heldLatest }) {
		return h.kv.Restore(records, next)
	}
	for i, r := range records { // one by one: a record of an older format may say less than the one that it replaces
		was, _, _, err := h.Get(r.Key)
		if err == nil {
			r.Value, err = upgradeHeld(&r, h.env, was)
		}
		if err != nil {
			return fmt.Errorf("store %q: restoring offset %d, key %q: %w", h.env.Spec.Name, r.Offset, r.Key, err)
		}
		at := next
		if next >= 0 && i+1 < len(records) {
			at = records[i+1].Offset
		}
		if err := h.kv.Restore([]flow.In{r}, at); err != nil {
			return err
		}
	}
	return nil
}

// Done: see flow.Store.
func (h *Holding) Done(epoch uint32, next int64) error {
	if err := h.kv.Done(epoch, next); err != nil {
		return err
	}
	if h.limit > 0 && h.bytes > h.limit {
		h.Shrink(h.kv.Memory() - h.limit)
	}
	return nil
}

// placed is about what a place takes up beside its key.
const placed = 48

// Memory: see flow.Store.
func (h *Holding) Memory() int64 {
	n := h.kv.Memory()
	if h.order != nil {
		n += int64(h.order.Len()) * (placed + 16)
	}
	return n
}
