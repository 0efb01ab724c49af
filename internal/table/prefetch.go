package table

import (
	"slices"

	"github.com/moldau/moldau/internal/flow"
)

// ahead is how many entries are fetched at a time: misses of the cache that do not wait for each other.
const ahead = 32

// Prefetch: see flow.Prefetcher. A table that several tasks share does not do it.
func (s *KV[K, V]) Prefetch(next []flow.In) { prefetch(s.kv, next) }

// Prefetch: see flow.Prefetcher.
func (s *Windows[K, V]) Prefetch(next []flow.In) { prefetch(s.windows, next) }

func prefetch(s any, next []flow.In) {
	if p, ok := s.(flow.Prefetcher); ok {
		p.Prefetch(next)
	}
}

func (s *keyValue[K, V, C]) Prefetch(next []flow.In) { s.prefetch(s.t, next) }

// Prefetch looks in the pane that was used last.
func (s *windowed[K, V, C]) Prefetch(next []flow.In) {
	if s.last != nil {
		s.prefetch(s.last.tab, next)
	}
}

// prefetch has the heads of the chains of some keys brought into the cache.
func (c *core[S, C]) prefetch(t *tab[S, C], next []flow.In) {
	if t.chains == 0 {
		return
	}
	var hashes [ahead]uint32
	var sum uint32
	mask := uint32(len(t.slots) - 1)
	for some := range slices.Chunk(next, ahead) {
		// Each loop is short, so that the processor is many turns ahead of what it waits for.
		for i := range some {
			hashes[i] = c.searching(some[i].Key).hash
		}
		for _, h := range hashes[:len(some)] {
			sum += t.slots[h&mask].ref
		}
		for _, h := range hashes[:len(some)] {
			i := h & mask
			for t.slots[i].ref != 0 && t.slots[i].hash != h {
				i = (i + 1) & mask
			}
			if ref := t.slots[i].ref; ref != 0 {
				sum += t.at(ref).bits
			}
		}
	}
	c.fetched = sum
}

// fetch has the entries of the next places in the order of updates brought into the cache.
func (c *core[S, C]) fetch(l *log[C], at int) {
	if at%ahead != 0 {
		return
	}
	var sum uint32
	for _, u := range l.order[at:min(at+ahead, len(l.order))] {
		if u != stale {
			r := &l.undo[u]
			sum += c.tabs[r.tab].at(r.ref).bits
		}
	}
	c.fetched = sum
}
