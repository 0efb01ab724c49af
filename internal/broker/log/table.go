package log

import (
	"iter"
	"maps"
	"slices"
	"sync"
)

// table is the keyed table of the coordinators: kind and key to value, the last write wins. It shows what is durable.
type table struct {
	mu    sync.RWMutex
	kinds map[byte]map[string][]byte
	size  int64 // bytes of keys and values
}

func (t *table) apply(puts []Put) {
	if len(puts) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kinds == nil {
		t.kinds = map[byte]map[string][]byte{}
	}
	for _, p := range puts {
		m := t.kinds[p.Kind]
		if m == nil {
			m = map[string][]byte{}
			t.kinds[p.Kind] = m
		}
		if old, ok := m[p.Key]; ok {
			t.size -= int64(len(p.Key) + len(old))
		}
		if p.Value == nil {
			delete(m, p.Key)
			continue
		}
		m[p.Key] = p.Value
		t.size += int64(len(p.Key) + len(p.Value))
	}
}

// clone is a copy that shares keys and values, which never change.
func (t *table) clone() map[byte]map[string][]byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	c := make(map[byte]map[string][]byte, len(t.kinds))
	for kind, m := range t.kinds {
		c[kind] = maps.Clone(m)
	}
	return c
}

// Records lists the records of a kind as they are durable when it is called, in the order of their keys.
func (l *Log) Records(kind byte) iter.Seq2[string, []byte] {
	l.table.mu.RLock()
	m := maps.Clone(l.table.kinds[kind])
	l.table.mu.RUnlock()
	return func(yield func(string, []byte) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}
