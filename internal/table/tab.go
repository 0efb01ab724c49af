package table

import (
	"bytes"
	"encoding/binary"

	"github.com/google/btree"
)

// entry is one key's place in the table. Without pointers, but for those a C may hold.
type entry[S, C any] struct {
	key  [16]byte // up to 16 bytes of key, zero behind the end; else the first 8 and the place of all in the slab
	time int64
	sub  S
	cell C
	mark uint32 // the log it was last touched in
	undo uint32 // its record there
	pos  uint32 // one more than its place in that log's order; 0: touched but not set
	next uint32 // of the chain, or of the free list
	size uint32 // length of the key
	bits uint32
}

const (
	used   uint32 = 1 << iota // an entry, not a free place
	live                      // it has a value
	hot                       // used since eviction last came by
	unseen                    // of an undo record: the entry had expired, though it was there
)

type slot struct{ hash, ref uint32 }

const (
	chunkBits = 10
	chunkLen  = 1 << chunkBits
)

// tab is one hash table: all of a key-value store, or one pane of a windowed one. Open addressing over 8-byte slots, in
// which the hash tells nearly every wrong entry without looking at it; entries in chunks that never move.
type tab[S suffix[S], C any] struct {
	id       uint32
	segment  int64
	slots    []slot
	chains   int // keys, that is, used slots
	entries  int
	chunks   [][]entry[S, C]
	top      uint32 // the last ref ever given
	free     uint32
	keys     slab
	tree     *btree.BTreeG[item] // nil: not ordered
	complete bool                // what is not here is not in the tier either
	filter   filter              // while not complete: what may be in the tier
	evicted  bool                // something has been let go of
	hand     uint32              // where eviction goes on
	pivot    pivot[S]
}

func newTab[S suffix[S], C any](id uint32, segment int64, ordered bool) *tab[S, C] {
	t := &tab[S, C]{id: id, segment: segment}
	if ordered {
		t.tree = btree.NewG(32, t.less)
	}
	return t
}

func (t *tab[S, C]) at(ref uint32) *entry[S, C] {
	return &t.chunks[ref>>chunkBits][ref&(chunkLen-1)]
}

// key gives the key's bytes; they are the table's own.
func (t *tab[S, C]) key(e *entry[S, C]) []byte {
	if e.size <= 16 {
		return e.key[:e.size:e.size]
	}
	return t.keys.get(binary.LittleEndian.Uint64(e.key[8:]), int(e.size))
}

func (t *tab[S, C]) equal(e *entry[S, C], k *keyed) bool {
	if e.size != uint32(len(k.bytes)) || binary.LittleEndian.Uint64(e.key[:8]) != k.k0 {
		return false
	}
	if e.size <= 16 {
		return binary.LittleEndian.Uint64(e.key[8:]) == k.k1
	}
	return bytes.Equal(t.key(e), k.bytes)
}

// place is the slot that holds k's chain, or the empty one where it would go.
func (t *tab[S, C]) place(k *keyed) uint32 {
	mask := uint32(len(t.slots) - 1)
	for i := k.hash & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s.ref == 0 || s.hash == k.hash && t.equal(t.at(s.ref), k) {
			return i
		}
	}
}

// head is the first entry of k's chain; 0: none.
func (t *tab[S, C]) head(k *keyed) uint32 {
	if t.chains == 0 {
		return 0
	}
	return t.slots[t.place(k)].ref
}

// find looks along k's chain.
func (t *tab[S, C]) find(k *keyed, sub S) uint32 {
	ref := t.head(k)
	for ref != 0 {
		e := t.at(ref)
		if e.sub == sub {
			return ref
		}
		if e.sub.compare(sub) < 0 {
			return 0
		}
		ref = e.next
	}
	return 0
}

// insert makes an entry that find did not find.
func (t *tab[S, C]) insert(k *keyed, sub S) (uint32, *entry[S, C]) {
	if 4*(t.chains+1) > 3*len(t.slots) {
		t.grow()
	}
	ref := t.alloc()
	e := t.at(ref)
	e.sub, e.bits = sub, used
	i := t.place(k)
	head := t.slots[i].ref
	if head == 0 {
		t.chains++
		t.slots[i] = slot{k.hash, ref}
		e.size = uint32(len(k.bytes))
		binary.LittleEndian.PutUint64(e.key[:8], k.k0)
		if e.size <= 16 {
			binary.LittleEndian.PutUint64(e.key[8:], k.k1)
		} else {
			binary.LittleEndian.PutUint64(e.key[8:], t.keys.put(k.bytes))
		}
	} else {
		h := t.at(head)
		e.key, e.size = h.key, h.size // a chain holds its key once
		if h.sub.compare(sub) < 0 {
			e.next = head
			t.slots[i].ref = ref
		} else {
			for h.next != 0 && t.at(h.next).sub.compare(sub) > 0 {
				h = t.at(h.next)
			}
			e.next, h.next = h.next, ref
		}
	}
	if t.tree != nil {
		t.tree.ReplaceOrInsert(t.item(ref))
	}
	return ref, e
}

// remove takes an entry out for good; whoever held its cell has let go of it.
func (t *tab[S, C]) remove(s seeds, ref uint32) {
	e := t.at(ref)
	if t.tree != nil {
		t.tree.Delete(t.item(ref))
	}
	var pad [64]byte
	k := s.look(append(pad[:0], t.key(e)...))
	i := t.place(&k)
	if t.slots[i].ref != ref {
		h := t.at(t.slots[i].ref)
		for h.next != ref {
			h = t.at(h.next)
		}
		h.next = e.next
	} else if e.next != 0 {
		t.slots[i].ref = e.next
	} else {
		if e.size > 16 {
			t.keys.release(binary.LittleEndian.Uint64(e.key[8:]), int(e.size))
		}
		t.vacate(i)
		t.chains--
	}
	*e = entry[S, C]{next: t.free}
	t.free = ref
	t.entries--
}

// vacate empties a slot and moves up those behind it that would not be found any more.
func (t *tab[S, C]) vacate(i uint32) {
	mask := uint32(len(t.slots) - 1)
	for j := i; ; {
		j = (j + 1) & mask
		s := t.slots[j]
		if s.ref == 0 {
			break
		}
		if (j-s.hash)&mask >= (j-i)&mask {
			t.slots[i] = s
			i = j
		}
	}
	t.slots[i] = slot{}
}

func (t *tab[S, C]) grow() {
	old := t.slots
	t.slots = make([]slot, max(16, 2*len(old)))
	mask := uint32(len(t.slots) - 1)
	for _, s := range old {
		if s.ref == 0 {
			continue
		}
		i := s.hash & mask
		for t.slots[i].ref != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = s
	}
}

func (t *tab[S, C]) alloc() uint32 {
	t.entries++
	if ref := t.free; ref != 0 {
		e := t.at(ref)
		t.free = e.next
		e.next = 0
		return ref
	}
	t.top++ // 0 is no entry
	c := int(t.top >> chunkBits)
	if c == len(t.chunks) {
		n := chunkLen
		if c == 0 {
			n = 8
		}
		t.chunks = append(t.chunks, make([]entry[S, C], n))
	} else if i := int(t.top & (chunkLen - 1)); i == len(t.chunks[c]) { // only the first one starts small
		t.chunks[c] = append(t.chunks[c], make([]entry[S, C], i)...)
	}
	return t.top
}
