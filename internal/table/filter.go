package table

// filter says of a key that it is certainly not in the tier: 10 bits a key, about 1 in 100 wrong in the other direction. Blocks
// of 64 bits, so that a question costs one cache line; it grows by adding layers twice as large.
type filter struct {
	known  bool // false: not all keys have been added, so anything may be there
	layers []layer
}

type layer struct {
	words []uint64
	room  int // keys that it may still take
}

func (f *filter) pattern(h uint32) (word uint64, bits uint64) {
	x := mix(uint64(h)^mix0, mix1)
	return x >> 32, 1<<(x&63) | 1<<(x>>6&63) | 1<<(x>>12&63) | 1<<(x>>18&63) | 1<<(x>>24&63)
}

// may is false if a key is certainly not there.
func (f *filter) may(h uint32) bool { return !f.known || f.has(h) }

func (f *filter) has(h uint32) bool {
	w, b := f.pattern(h)
	for _, l := range f.layers {
		if l.words[w*uint64(len(l.words))>>32]&b == b {
			return true
		}
	}
	return false
}

// add takes up a key, also while not all are known.
func (f *filter) add(h uint32) {
	if f.has(h) {
		return
	}
	n := len(f.layers)
	if n == 0 || f.layers[n-1].room == 0 {
		size := 1 << 10
		if n > 0 {
			size = 2 * len(f.layers[n-1].words)
		}
		f.layers = append(f.layers, layer{make([]uint64, size), size * 64 / 10})
		n++
	}
	l := &f.layers[n-1]
	w, b := f.pattern(h)
	l.words[w*uint64(len(l.words))>>32] |= b
	l.room--
}

func (f *filter) memory() (n int64) {
	for _, l := range f.layers {
		n += int64(len(l.words)) * 8
	}
	return n
}
