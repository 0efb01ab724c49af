package tier

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/moldau/moldau/internal/flow"
)

// gather holds what has been handed down and is not on disk yet: the last write of each key. Keys and values lie in a
// few large chunks; a value that fits is written over the last one.
type gather struct {
	seed    maphash.Seed
	index   []slot // open addressing
	entries []gathered
	chunks  [][]byte
	waste   int // bytes in chunks that nothing refers to
	held    int
	puts    int // entries that are not deletions
	sorted  []sortable
	fetched uint32 // so that fetch is not optimised away
}

// slot tells by the hash nearly every wrong entry without looking at it.
type slot struct {
	hash uint32
	at   uint32 // one more than the place in entries; 0: empty
}

type gathered struct {
	chunk uint32
	off   uint32
	key   uint32 // length
	value int32  // length; -1: deleted
	room  uint32 // for the value
}

type sortable struct {
	prefix uint64
	at     uint32
}

const (
	chunkSize = 256 << 10
	// entrySize is what an entry costs beside its bytes.
	entrySize = 20 + 12
)

func newGather() *gather {
	return &gather{seed: maphash.MakeSeed()} //lint:rand nothing that can be observed depends on it
}

func (g *gather) memory() int64 {
	return int64(g.held) + int64(cap(g.entries))*20 + int64(len(g.index))*8 + int64(cap(g.sorted))*16
}

// size is about what a flush would write.
func (g *gather) size() int64 { return int64(g.held-g.waste) + int64(len(g.entries))*entrySize }

func (g *gather) key(e *gathered) []byte {
	return g.chunks[e.chunk][e.off : e.off+e.key : e.off+e.key]
}

// value is nil if the key is deleted.
func (g *gather) value(e *gathered) []byte {
	if e.value < 0 {
		return nil
	}
	from := e.off + e.key
	return g.chunks[e.chunk][from : from+uint32(e.value) : from+uint32(e.value)]
}

// place is where key is, or would be, in the index.
func (g *gather) place(key []byte, hash uint32) *slot {
	mask := uint32(len(g.index) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &g.index[i]
		if s.at == 0 || s.hash == hash && bytes.Equal(g.key(&g.entries[s.at-1]), key) {
			return s
		}
	}
}

func (g *gather) hash(key []byte) uint32 { return uint32(maphash.Bytes(g.seed, key)) }

func (g *gather) find(key []byte) *gathered {
	if len(g.entries) == 0 {
		return nil
	}
	if s := g.place(key, g.hash(key)); s.at != 0 {
		return &g.entries[s.at-1]
	}
	return nil
}

// ahead is how many changes are looked up at a time: misses of the cache that do not wait for each other.
const ahead = 32

func (g *gather) apply(changes []flow.TierChange) {
	var hashes [ahead]uint32
	for some := range slices.Chunk(changes, ahead) {
		for i := range some {
			hashes[i] = g.hash(some[i].Key)
		}
		g.fetch(hashes[:len(some)])
		for i := range some {
			g.put(some[i].Key, some[i].Value, hashes[i])
		}
	}
}

// fetch brings what is likely meant by some hashes into the cache: slots first, then entries, then bytes.
func (g *gather) fetch(hashes []uint32) {
	if len(g.entries) == 0 {
		return
	}
	var likely [ahead]uint32
	var sum uint32
	mask := uint32(len(g.index) - 1)
	for _, h := range hashes {
		sum += g.index[h&mask].at
	}
	n := 0
	for _, h := range hashes {
		i := h & mask
		for g.index[i].at != 0 && g.index[i].hash != h {
			i = (i + 1) & mask
		}
		if at := g.index[i].at; at != 0 {
			likely[n] = at - 1
			n++
		}
	}
	for _, at := range likely[:n] {
		sum += g.entries[at].off
	}
	for _, at := range likely[:n] {
		e := &g.entries[at]
		if b := g.chunks[e.chunk]; int(e.off) < len(b) {
			sum += uint32(b[e.off])
		}
	}
	g.fetched = sum
}

// put sets a key of a hash; a nil value deletes it.
func (g *gather) put(key, value []byte, hash uint32) {
	if 4*(len(g.entries)+1) > 3*len(g.index) {
		g.grow()
	}
	s := g.place(key, hash)
	if s.at != 0 {
		g.overwrite(&g.entries[s.at-1], value)
		return
	}
	e := gathered{key: uint32(len(key)), value: -1}
	e.chunk, e.off = g.write(key, value)
	if value != nil {
		e.value, e.room = int32(len(value)), uint32(len(value))
		g.puts++
	}
	g.entries = append(g.entries, e)
	*s = slot{hash, uint32(len(g.entries))}
}

func (g *gather) overwrite(e *gathered, value []byte) {
	if e.value >= 0 {
		g.puts--
	}
	if value != nil {
		g.puts++
	}
	if len(value) > int(e.room) {
		key := g.key(e)
		g.waste += int(e.key + e.room)
		e.chunk, e.off = g.write(key, value)
		e.room = uint32(len(value))
	} else {
		copy(g.chunks[e.chunk][e.off+e.key:], value)
	}
	e.value = int32(len(value))
	if value == nil {
		e.value = -1
	}
	if g.waste > 2*chunkSize && g.waste > g.held/2 {
		g.compact()
	}
}

func (g *gather) write(key, value []byte) (chunk, off uint32) {
	n := len(key) + len(value)
	last := len(g.chunks) - 1
	if last < 0 || cap(g.chunks[last])-len(g.chunks[last]) < n {
		size := max(n, min(chunkSize, max(4<<10, g.held)))
		g.chunks = append(g.chunks, make([]byte, 0, size))
		g.held += size
		last++
	}
	c := g.chunks[last]
	off = uint32(len(c))
	g.chunks[last] = append(append(c, key...), value...)
	return uint32(last), off
}

// compact writes what is left into new chunks.
func (g *gather) compact() {
	old := *g
	g.chunks, g.held, g.waste = nil, 0, 0
	for i := range g.entries {
		e := &g.entries[i]
		key, value := old.key(e), old.value(e)
		e.chunk, e.off = g.write(key, value)
		e.room = uint32(len(value))
	}
}

func (g *gather) grow() {
	old := g.index
	g.index = make([]slot, max(64, 2*len(old)))
	mask := uint32(len(g.index) - 1)
	for _, s := range old {
		if s.at == 0 {
			continue
		}
		i := s.hash & mask
		for g.index[i].at != 0 {
			i = (i + 1) & mask
		}
		g.index[i] = s
	}
}

func (g *gather) less(a, b sortable) int {
	if c := cmp.Compare(a.prefix, b.prefix); c != 0 {
		return c
	}
	return bytes.Compare(g.key(&g.entries[a.at]), g.key(&g.entries[b.at]))
}

func prefix(b []byte) uint64 {
	if len(b) >= 8 {
		return binary.BigEndian.Uint64(b)
	}
	var p [8]byte
	copy(p[:], b)
	return binary.BigEndian.Uint64(p[:])
}

// order gives all entries by key. It is kept until there are new ones, and those are merged into it.
func (g *gather) order() []sortable {
	n := len(g.sorted)
	if n == len(g.entries) {
		return g.sorted
	}
	fresh := make([]sortable, 0, len(g.entries)-n)
	for i := n; i < len(g.entries); i++ {
		fresh = append(fresh, sortable{prefix(g.key(&g.entries[i])), uint32(i)})
	}
	slices.SortFunc(fresh, g.less)
	if n == 0 {
		g.sorted = fresh
		return fresh
	}
	all := make([]sortable, 0, len(g.entries))
	old := g.sorted
	for len(old) > 0 && len(fresh) > 0 {
		if g.less(old[0], fresh[0]) < 0 {
			all, old = append(all, old[0]), old[1:]
		} else {
			all, fresh = append(all, fresh[0]), fresh[1:]
		}
	}
	g.sorted = append(append(all, old...), fresh...)
	return g.sorted
}

// within gives the entries of [from, to) by key.
func (g *gather) within(from, to []byte) []sortable {
	all := g.order()
	seek := func(k []byte) int {
		i, _ := slices.BinarySearchFunc(all, k, func(s sortable, k []byte) int { return bytes.Compare(g.key(&g.entries[s.at]), k) })
		return i
	}
	lo, hi := 0, len(all)
	if from != nil {
		lo = seek(from)
	}
	if to != nil {
		hi = max(lo, seek(to))
	}
	return all[lo:hi]
}

// reset empties it for the next round; what was large is let go of.
func (g *gather) reset() {
	*g = gather{seed: g.seed}
}
