package tier

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/moldau/moldau/internal/flow"
)

// change is one record of an imaginary changelog.
type change struct {
	store int
	key   string
	value []byte
}

// crashing runs stores over a disk that may be lost, bit by bit, at any write.
type crashing struct {
	t       *testing.T
	rnd     *rand.Rand
	mem     *vfs.MemFS
	after   int // writes until the crash; negative: none is due
	clone   *vfs.MemFS
	db      DB
	stores  []Store
	epochs  [2][][]change // per store: committed epochs, in order; the position is how many
	durable [2]int64
	// at the moment of the clone
	durableThen [2]int64
	partial     [2]map[string][]byte
	flush       func(c *crashing)
}

func (c *crashing) must(err error) {
	if err != nil {
		c.t.Helper()
		c.t.Fatal(err)
	}
}

func (c *crashing) open(mem *vfs.MemFS) {
	c.mem, c.clone, c.after = mem, nil, -1
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && c.after >= 0 {
			if c.after--; c.after < 0 {
				c.clone = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.rnd.IntN(4) * 33, RNG: c.rnd})
				c.durableThen = c.durable
			}
		}
		return nil
	}))
	db, err := Open("task", Options{FS: fs, FlushBytes: 4 << 10})
	c.must(err)
	c.db, c.stores = db, nil
	for i := range 2 {
		s, err := db.Store(fmt.Sprint("s", i), Expect{})
		c.must(err)
		c.stores = append(c.stores, s)
		c.check(i, s.Position())
		c.replay(i)
	}
}

// check compares a store with the changelog up to its position.
func (c *crashing) check(i int, position int64) {
	if position < c.durableThen[i] {
		c.t.Fatalf("store %d is at %d after a crash, %d was durable", i, position, c.durableThen[i])
	}
	want := map[string]string{}
	for _, e := range c.epochs[i][:max(0, position)] {
		for _, ch := range e {
			if ch.value == nil {
				delete(want, ch.key)
			} else {
				want[ch.key] = string(ch.value)
			}
		}
	}
	n := 0
	c.must(c.stores[i].Scan(nil, nil, func(k, v []byte) bool {
		if w, ok := want[string(k)]; !ok || w != string(v) {
			c.t.Fatalf("store %d at %d: %s=%s, want %q %v", i, position, k, v, w, ok)
		}
		n++
		return true
	}))
	if n != len(want) {
		c.t.Fatalf("store %d at %d has %d keys, want %d", i, position, n, len(want))
	}
	for k, w := range want {
		if v, ok, err := c.stores[i].Get(nil, []byte(k)); err != nil || !ok || string(v) != w {
			c.t.Fatalf("store %d at %d: get %s: %q %v %v, want %q", i, position, k, v, ok, err, w)
		}
	}
}

func (c *crashing) replay(i int) {
	for at := max(0, c.stores[i].Position()); at < int64(len(c.epochs[i])); at++ {
		c.apply(i, at)
	}
}

func (c *crashing) apply(i int, at int64) {
	var changes []flow.TierChange
	for _, ch := range c.epochs[i][at] {
		changes = append(changes, flow.TierChange{Key: []byte(ch.key), Value: ch.value})
	}
	c.must(c.stores[i].Apply(changes, at+1))
}

func (c *crashing) step() {
	if c.after < 0 && c.rnd.IntN(20) == 0 {
		c.after = c.rnd.IntN(40)
	}
	switch i := c.rnd.IntN(2); c.rnd.IntN(12) {
	case 0:
		c.flush(c)
		for i := range c.stores {
			c.durable[i] = c.stores[i].Position()
		}
	case 1:
		c.must(c.stores[i].Flush())
		c.durable[i] = c.stores[i].Position()
	case 2:
		c.check(i, c.stores[i].Position())
	default:
		var e []change
		for range c.rnd.IntN(20) {
			ch := change{store: i, key: fmt.Sprint("k", c.rnd.IntN(60))}
			if c.rnd.IntN(4) > 0 {
				ch.value = fmt.Append(nil, "v", c.rnd.IntN(1000), "-with-more"[:c.rnd.IntN(10)])
			}
			e = append(e, ch)
		}
		c.epochs[i] = append(c.epochs[i], e)
		c.apply(i, int64(len(c.epochs[i])-1))
	}
	if c.clone != nil {
		c.must(c.db.Close())
		clone := c.clone
		c.durable = c.durableThen
		c.open(clone)
	}
}

func newCrashing(t *testing.T, seed uint64) *crashing {
	c := &crashing{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), durable: [2]int64{-1, -1}, durableThen: [2]int64{-1, -1},
		flush: func(c *crashing) { c.must(c.db.Flush(1)) }}
	c.open(vfs.NewCrashableMem())
	return c
}

// TestCrashFindsDataAndPositionOfOneMoment: whatever write a crash comes at, what is found is the state at the position that
// is found with it, and nothing that was flushed is lost.
func TestCrashFindsDataAndPositionOfOneMoment(t *testing.T) {
	crashes := 0
	for seed := range uint64(40) {
		c := newCrashing(t, seed)
		for range 400 {
			was := c.mem
			c.step()
			if c.mem != was {
				crashes++
			}
		}
		c.must(c.db.Close())
	}
	if crashes < 200 {
		t.Fatalf("only %d crashes: the test shows nothing", crashes)
	}
	t.Log(crashes, "crashes")
}
