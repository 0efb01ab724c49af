package tier

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
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
	bad     error
	mu      sync.Mutex // over the next four, which Pebble's goroutines see as well
	after   int        // writes until the crash; negative: none is due
	clone   *vfs.MemFS
	clones  *rand.Rand
	durable [3]int64
	db      DB
	stores  []Store
	epochs  [3][][]change // per store: committed epochs, in order; the position is how many
	// at the moment of the clone
	durableThen [3]int64
	flush       func(c *crashing)
}

func (c *crashing) must(err error) {
	if err != nil {
		c.t.Helper()
		c.t.Fatal(err)
	}
}

// linking keeps CrashClone out while there is a Link: MemFS takes a lock twice for that one, and waits for itself if somebody
// else wants to clone in between.
type linking struct {
	vfs.FS
	mu *sync.Mutex
}

func (f linking) Link(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.FS.Link(from, to)
}

func (c *crashing) open(mem *vfs.MemFS) {
	c.mu.Lock()
	c.mem, c.clone, c.after = mem, nil, -1
	c.mu.Unlock()
	fs := errorfs.Wrap(linking{mem, &c.mu}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && c.after >= 0 && c.mem == mem {
			if c.after--; c.after < 0 {
				c.clone = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.clones.IntN(4) * 33, RNG: c.clones})
				c.durableThen = c.durable
			}
		}
		return nil
	}))
	db, err := Open("task", Options{FS: fs, FlushBytes: 4 << 10})
	c.must(err)
	c.db, c.stores = db, nil
	for i := range c.epochs {
		e := Expect{}
		if i == parted {
			e.Parts = []Part{{0, 1 << 30}, {0, 1 << 30}}
		}
		s, err := db.Store(fmt.Sprint("s", i), e)
		c.must(err)
		if why := s.Stale(); why != "" {
			c.judge(errors.New(why))
		}
		c.stores = append(c.stores, s)
		c.judge(c.check(i))
		if then, at := c.durableThen[i], c.position(i); at < then {
			c.judge(fmt.Errorf("store %d is at %d after a crash, %d was durable", i, at, then))
		}
		if c.bad == nil {
			c.replay(i)
		}
	}
}

// judge keeps the first thing that is wrong.
func (c *crashing) judge(err error) {
	if c.bad == nil {
		c.bad = err
	}
}

// parted is a store that two partitions fill; every third epoch is of the second one.
const parted = 2

func partOf(at int64) int32 { return int32(at % 3 / 2) }

// position is how many epochs of a store are in it; -1: none.
func (c *crashing) position(i int) int64 {
	if i != parted {
		return c.stores[i].Position()
	}
	at, sum := int64(-1), int64(0)
	positions := c.stores[i].Positions()
	for _, n := range positions {
		if n >= 0 {
			sum += n
			at = sum
		}
	}
	for p := range int32(2) {
		n := int64(-1)
		if int(p) < len(positions) {
			n = positions[p]
		}
		if want := c.inPart(p, sum); max(n, 0) != want {
			c.judge(fmt.Errorf("store %d has %v, which never was: of its first %d epochs %d are of partition %d", i, positions, sum, want, p))
		}
	}
	return at
}

// inPart is how many of the first epochs are of a partition.
func (c *crashing) inPart(p int32, epochs int64) (n int64) {
	for at := range epochs {
		if partOf(at) == p {
			n++
		}
	}
	return n
}

// check compares a store with the changelog up to its position.
func (c *crashing) check(i int) error {
	position := c.position(i)
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
	var bad error
	n := 0
	c.must(c.stores[i].Scan(nil, nil, func(k, v []byte) bool {
		if w, ok := want[string(k)]; !ok || w != string(v) {
			bad = fmt.Errorf("store %d at %d: %s=%s, want %q %v", i, position, k, v, w, ok)
		}
		n++
		return bad == nil
	}))
	if bad == nil && n != len(want) {
		bad = fmt.Errorf("store %d at %d has %d keys, want %d", i, position, n, len(want))
	}
	for k, w := range want {
		if v, ok, err := c.stores[i].Get(nil, []byte(k)); bad == nil && (err != nil || !ok || string(v) != w) {
			bad = fmt.Errorf("store %d at %d: get %s: %q %v %v, want %q", i, position, k, v, ok, err, w)
		}
	}
	return bad
}

func (c *crashing) replay(i int) {
	for at := max(0, c.position(i)); at < int64(len(c.epochs[i])); at++ {
		c.apply(i, at)
	}
}

func (c *crashing) apply(i int, at int64) {
	var changes []flow.TierChange
	for _, ch := range c.epochs[i][at] {
		changes = append(changes, flow.TierChange{Key: []byte(ch.key), Value: ch.value})
	}
	next := at + 1
	if i == parted {
		c.stores[i].Advance(partOf(at), c.inPart(partOf(at), next))
		next = -1
	}
	c.must(c.stores[i].Apply(changes, next))
}

func (c *crashing) step() {
	c.mu.Lock()
	if c.after < 0 && c.rnd.IntN(20) == 0 {
		c.after = c.rnd.IntN(40)
	}
	c.mu.Unlock()
	switch i := c.rnd.IntN(len(c.epochs)); c.rnd.IntN(12) {
	case 0:
		c.flush(c)
		for i := range c.epochs {
			c.saved(i)
		}
	case 1:
		c.must(c.stores[i].Flush())
		c.saved(i)
	case 2:
		c.judge(c.check(i))
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
	c.mu.Lock()
	clone := c.clone
	if clone != nil {
		c.durable = c.durableThen
	}
	c.mu.Unlock()
	if clone != nil {
		c.must(c.db.Close())
		c.open(clone)
	}
}

func (c *crashing) saved(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clone == nil {
		c.durable[i] = c.position(i)
	}
}

func newCrashing(t *testing.T, seed uint64) *crashing {
	c := &crashing{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), clones: rand.New(rand.NewPCG(seed, 8)), durable: [3]int64{-1, -1, -1},
		durableThen: [3]int64{-1, -1, -1}, flush: func(c *crashing) { c.must(c.db.Flush(1)) }}
	c.open(vfs.NewCrashableMem())
	return c
}

// run takes steps until something is wrong and says how many crashes there were.
func (c *crashing) run(steps int) (crashes int) {
	for n := 0; n < steps && c.bad == nil; n++ {
		was := c.mem
		c.step()
		if c.mem != was {
			crashes++
		}
	}
	c.must(c.db.Close())
	return crashes
}

// TestCrashFindsDataAndPositionOfOneMoment: whatever write a crash comes at, what is found is the state at the position that
// is found with it, and nothing that was flushed is lost.
func TestCrashFindsDataAndPositionOfOneMoment(t *testing.T) {
	crashes := 0
	for seed := range uint64(15) {
		c := newCrashing(t, seed)
		crashes += c.run(300)
		if c.bad != nil {
			t.Fatalf("seed %d: %v", seed, c.bad)
		}
	}
	if crashes < 80 {
		t.Fatalf("only %d crashes: the test shows nothing", crashes)
	}
	t.Log(crashes, "crashes")
}

// TestCrashTestCatches: the test above is worth something if it fails for a tier that saves the position by itself.
func TestCrashTestCatches(t *testing.T) {
	for seed := range uint64(20) {
		c := newCrashing(t, seed)
		c.flush = func(c *crashing) {
			d := c.db.(*directory)
			for _, s := range d.stores {
				c.must(d.db.Set(s.base(s.gen, aboutItself), s.meta(), pebble.NoSync))
			}
			c.must(d.db.Flush())
			c.must(c.db.Flush(1))
		}
		if c.run(300); c.bad != nil {
			t.Logf("seed %d: %v", seed, c.bad)
			return
		}
	}
	t.Fatal("a position saved apart from its data was not noticed")
}
