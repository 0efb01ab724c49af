package log

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// The crash test writes at random, takes what a power loss at some write to the file system would leave, opens that,
// and compares. Submit is called by one goroutine, so what is recovered must be what some first k of the writes lead
// to, and k must reach the last write that was acknowledged as synced. Each write carries its number in the table.

const kindNumber = 9

// crashRun is one life of a log, from Open to a crash.
type crashRun struct {
	t       *testing.T
	d       Durability
	rng     *rand.Rand
	l       *Log
	parts   []*Partition
	model   *model
	history []*model // by number

	mu       sync.Mutex
	acked    int                   // highest number acknowledged with a sync
	ackStart map[PartitionID]int64 // first offsets acknowledged
	killed   bool
	clone    *vfs.MemFS
	cloneAck int
	cloneLow map[PartitionID]int64
	sites    map[string]int
}

const crashParts = 4

func crashOptions(fs vfs.FS, d Durability, boot int, lie string) Options {
	o := options(lyingFS{fs, lie})
	o.Durability, o.Interval, o.BootID = d, time.Millisecond, fmt.Sprint("boot ", boot)
	o.WALBytes, o.CacheBytes, o.SegmentBytes, o.openSegments, o.LargeBatch = 1<<10, 2<<10, 1500, 2, 300
	return o
}

// crashLife opens fs, works on it and returns what a crash leaves; nil model history on the first life.
func crashLife(t *testing.T, seed uint64, fs *vfs.MemFS, before *crashRun, d Durability, boot int, lie string, sites map[string]int) (*crashRun, *vfs.MemFS, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	r := &crashRun{t: t, d: d, rng: rng, ackStart: map[PartitionID]int64{}, sites: sites}
	at := 1 + rng.IntN(1+rng.IntN(300))
	percent := []int{0, 10, 50, 100}[rng.IntN(4)]
	kill := rng.IntN(4) == 0
	n := 0
	var wrap sync.Mutex
	injector := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		wrap.Lock()
		defer wrap.Unlock()
		n++
		if kill && n > at {
			return errKilled
		}
		if n != at {
			return nil
		}
		if r.sites != nil {
			r.sites[callSite()]++
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cloneAck = r.acked
		r.cloneLow = maps.Clone(r.ackStart)
		if kill {
			r.clone, r.killed = fs, true
			return errKilled
		}
		if d != Sync {
			// Power loss may take what was acknowledged, but only the end of it.
			r.cloneAck, r.cloneLow = 0, nil
		}
		r.clone = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 2))})
		return nil
	})
	var err error
	r.l, err = Open(crashOptions(errorfs.Wrap(fs, injector), d, boot, lie))
	if errors.Is(err, errKilled) {
		return before, fs, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open: %w", err)
	}
	r.mu.Lock()
	early := r.clone
	r.mu.Unlock()
	if early != nil && before != nil {
		// What the life before had acknowledged must have survived the crash while it was recovered, too.
		if err := r.l.Close(); err != nil && !r.dead(err) {
			return nil, nil, err
		}
		if before.d != Sync && !kill {
			before.cloneAck, before.cloneLow = 0, nil
		}
		return before, early, nil
	}
	if before == nil {
		r.model = newModel()
	} else {
		r.model, err = before.recovered(r.l)
		if errors.Is(err, errKilled) {
			if err := r.l.Close(); err != nil && !r.dead(err) {
				return nil, nil, err
			}
			return before, fs, nil
		}
		if err != nil {
			return nil, nil, errors.Join(err, r.l.Close())
		}
	}
	r.mu.Lock()
	r.acked = r.model.number
	for id, p := range r.model.parts {
		r.ackStart[id] = p.start
	}
	r.mu.Unlock()
	r.history = append(r.history, r.model.clone())
	for i := range crashParts {
		id := PartitionID{Topic: [16]byte{byte(seed), 0}, Partition: int32(i)}
		for known := range r.model.parts {
			if known.Partition == int32(i) {
				id = known
			}
		}
		p, err := r.l.CreatePartition(id, "t", Config{})
		if err != nil {
			return nil, nil, err
		}
		r.parts = append(r.parts, p)
	}
	for range 60 {
		r.step()
		wrap.Lock()
		crashed := n >= at
		wrap.Unlock()
		if crashed {
			break
		}
	}
	// The log goes on undisturbed by the clone; closing it shows that it can.
	if rng.IntN(4) == 0 {
		if err := r.l.Checkpoint(); err != nil && !r.dead(err) {
			return nil, nil, err
		}
	}
	if err := r.l.Close(); err != nil && !r.dead(err) {
		return nil, nil, err
	}
	if r.clone == nil {
		// It was not to be: the crash happens behind the close.
		r.cloneAck, r.cloneLow = r.acked, r.ackStart
		r.clone = fs.CrashClone(vfs.CrashCloneCfg{})
	}
	return r, r.clone, nil
}

// errKilled is what the file system says to a process that was killed and does not know it yet.
var errKilled = errors.New("killed")

// dead says that err only shows that the process was killed.
func (r *crashRun) dead(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.killed && err != nil
}

// callSite names the place of this package that writes.
func callSite() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.Contains(f.Function, "broker/log.") && !strings.Contains(f.File, "_test.go") {
			return fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)
		}
		if !more {
			return "?"
		}
	}
}

// step does something.
func (r *crashRun) step() {
	switch k := r.rng.IntN(20); {
	case k < 12:
		r.write()
	case k < 16:
		r.end()
	case k == 16:
		r.deleteRecords()
	case k == 17:
		// Lets what is queued be written, so that crashes find more than the queue.
		if err := <-r.l.barrier(); err != nil && !r.dead(err) {
			r.t.Fatal(err)
		}
	case k == 18:
		if err := r.l.Checkpoint(); err != nil && !r.dead(err) {
			r.t.Fatal(err)
		}
	case k == 19:
		r.drop()
	}
}

// submit sends w with its number and remembers what it must lead to.
func (r *crashRun) submit(w Write, wait Wait) {
	r.model.number++
	number := r.model.number
	w.Puts = append(w.Puts, Put{Kind: kindNumber, Key: "number", Value: fmt.Append(nil, number)})
	if r.rng.IntN(3) == 0 {
		key := fmt.Sprint("key", r.rng.IntN(5))
		if r.rng.IntN(4) == 0 {
			w.Puts = append(w.Puts, Put{Kind: 1, Key: key})
			delete(r.model.table, key)
		} else {
			w.Puts = append(w.Puts, Put{Kind: 1, Key: key, Value: fmt.Append(nil, number)})
			r.model.table[key] = fmt.Sprint(number)
		}
	}
	r.history = append(r.history, r.model.clone())
	results := r.l.Submit(w, wait, func(err error) {
		if err != nil {
			if !r.dead(err) {
				r.t.Error(err)
			}
			return
		}
		if wait == WaitSync {
			r.mu.Lock()
			r.acked = max(r.acked, number)
			r.mu.Unlock()
		}
	})
	for i, x := range results {
		if x.Err != nil && !r.dead(x.Err) {
			r.t.Fatalf("write %d, item %d: %v: %s", number, i, x.Err, x.ErrMessage)
		}
	}
}

// write appends to some partitions at once.
func (r *crashRun) write() {
	pid := int64(r.rng.IntN(4)) // 0: none
	txn := pid >= 2
	wait := WaitSync
	if txn {
		wait = WaitNone
	}
	var w Write
	for _, i := range r.rng.Perm(crashParts)[:1+r.rng.IntN(3)] {
		p := r.parts[i]
		m := r.model.part(p.id)
		q, ok := m.producers[pid]
		if !ok {
			q = modelProducer{lastSeq: -1, txn: -1}
		}
		s := spec{pid: pid, epoch: max(q.epoch, 0), seq: q.lastSeq + 1, txn: txn, codec: 2 * r.rng.IntN(2)}
		value := fmt.Sprintf("%d/%d/%s", r.model.number+1, i, strings.Repeat("x", r.rng.IntN(300)))
		for range 1 + r.rng.IntN(4) {
			s.records = append(s.records, kv("k", value))
		}
		w.Appends = append(w.Appends, Append{Partition: p, Batch: s.build(r.t)})
		m.append(s, value)
	}
	r.submit(w, wait)
}

// end commits or aborts the transaction of a producer everywhere.
func (r *crashRun) end() {
	pid := int64(2 + r.rng.IntN(2))
	var w Write
	commit := r.rng.IntN(2) == 0
	for _, p := range r.parts {
		m := r.model.part(p.id)
		q, ok := m.producers[pid]
		if !ok || q.txn < 0 {
			continue
		}
		k := Marker{Partition: p, ProducerID: pid, Epoch: q.epoch + int16(r.rng.IntN(2)), Commit: commit}
		w.Markers = append(w.Markers, k)
		m.mark(&k)
	}
	r.submit(w, WaitSync)
}

func (r *crashRun) deleteRecords() {
	p := r.parts[r.rng.IntN(len(r.parts))]
	start, hw, _ := p.Offsets()
	if hw == start {
		return
	}
	to := start + r.rng.Int64N(hw-start+1)
	got, err := p.DeleteRecords(to)
	if r.dead(err) {
		return
	}
	if err != nil || got != to {
		r.t.Fatalf("delete records below %d: %d, %v", to, got, err)
	}
	r.model.part(p.id).start = to
	r.mu.Lock()
	r.ackStart[p.id] = to
	r.mu.Unlock()
}

// drop deletes a partition and makes another in its place.
func (r *crashRun) drop() {
	i := r.rng.IntN(len(r.parts))
	p := r.parts[i]
	next := p.id
	if next.Topic[1]++; next.Topic[1] > 200 {
		return
	}
	err := r.l.DeletePartition(p.id)
	if r.dead(err) {
		for _, m := range r.history { // it may have got through
			delete(m.parts, p.id)
		}
		return
	}
	if err != nil {
		r.t.Fatal(err)
	}
	delete(r.model.parts, p.id)
	r.mu.Lock()
	r.ackStart[p.id] = -1 // gone
	r.mu.Unlock()
	if r.parts[i], err = r.l.CreatePartition(next, "t", Config{}); err != nil {
		r.t.Fatal(err)
	}
	for _, m := range r.history {
		delete(m.parts, p.id)
	}
}

// recovered compares what l holds with what it must hold behind a crash of r, and returns the model of it.
func (r *crashRun) recovered(l *Log) (*model, error) {
	number := r.history[0].number
	table := map[string]string{}
	for k, v := range l.Records(1) {
		table[k] = string(v)
	}
	for _, v := range l.Records(kindNumber) {
		if _, err := fmt.Sscan(string(v), &number); err != nil {
			return nil, err
		}
	}
	if number < r.cloneAck {
		return nil, fmt.Errorf("write %d was acknowledged, only %d are there", r.cloneAck, number)
	}
	if number-r.history[0].number >= len(r.history) {
		return nil, fmt.Errorf("write %d is there but was never made", number)
	}
	m := r.history[number-r.history[0].number].clone()
	if !maps.Equal(table, m.table) {
		return nil, fmt.Errorf("behind write %d the table is %v, want %v", number, table, m.table)
	}
	held := map[PartitionID]bool{}
	for _, id := range l.Partitions() {
		held[id] = true
		if low := r.cloneLow[id]; low < 0 {
			return nil, fmt.Errorf("partition %v was deleted and is there", id)
		}
		if m.parts[id] == nil {
			delete(held, id)
			// Its deletion was under way, or it never got a batch.
			if err := l.DeletePartition(id); err != nil {
				return nil, err
			}
		}
	}
	for id, want := range m.parts {
		if !held[id] && len(want.batches) > 0 {
			return nil, fmt.Errorf("partition %v is gone, want %d batches", id, len(want.batches))
		}
		p, err := l.CreatePartition(id, "t", Config{})
		if err != nil {
			return nil, err
		}
		if err := want.compare(p, r.cloneLow[id]); err != nil {
			return nil, fmt.Errorf("behind write %d, %s: %w", number, p, err)
		}
	}
	return m, nil
}

// durabilityOf is that of a life: Sync for half of the seeds, OS or Interval for others, and changing for some.
func durabilityOf(seed uint64, life int) Durability {
	switch seed % 8 {
	case 0:
		return Interval
	case 2, 4:
		return OS
	case 6:
		return Durability((seed/8 + uint64(life)) % 3)
	}
	return Sync
}

// crashes runs lives of logs, each begun from the crash of the one before, and returns the first violation.
func crashes(t *testing.T, seed uint64, lives int, lie string, sites map[string]int) error {
	fs := vfs.NewCrashableMem()
	var r *crashRun
	d, boot := Sync, 0
	for i := range lives {
		if lie == "" {
			d = durabilityOf(seed, i)
		}
		next, clone, err := crashLife(t, seed*1000+uint64(i), fs, r, d, boot, lie, sites)
		if err != nil {
			return fmt.Errorf("seed %d, life %d: %w", seed, i, err)
		}
		if clone != fs {
			boot++
		}
		r, fs = next, clone
	}
	l, err := Open(crashOptions(fs, d, boot, lie))
	if err != nil {
		return fmt.Errorf("seed %d, open at the end: %w", seed, err)
	}
	if r != nil {
		if _, err = r.recovered(l); err != nil {
			err = fmt.Errorf("seed %d, at the end: %w", seed, err)
		}
	}
	return errors.Join(err, l.Close())
}

// writes lists the places of this package that change files, as callSite names them.
func writes(t *testing.T) (sites []string) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	changes := []string{"Create", "MkdirAll", "Remove", "RemoveAll", "Rename", "ReuseForWrite", "Link", "Lock",
		"Write", "WriteAt", "Preallocate", "Sync", "SyncData", "SyncTo"}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || name == "codec.go" { // a codec writes to memory
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			mutex := ok && sel.Sel.Name == "Lock" && len(call.Args) == 0
			if ok && !mutex && slices.Contains(changes, sel.Sel.Name) {
				sites = append(sites, fmt.Sprintf("%s:%d", name, set.Position(sel.Pos()).Line))
			}
			return true
		})
	}
	return sites
}

// TestCrash takes MOLDAU_CRASHES crashes, 1,000 by default, and some of compactions. MOLDAU_SEED is the first seed, of five
// crashes each; 1 by default, and then every place that writes must be hit.
func TestCrash(t *testing.T) {
	want, first := 1000, 1
	for name, to := range map[string]*int{"MOLDAU_CRASHES": &want, "MOLDAU_SEED": &first} {
		if s := os.Getenv(name); s != "" {
			var err error
			if *to, err = strconv.Atoi(s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	sites := map[string]int{}
	n := 0
	for seed := uint64(first); n < want; seed++ {
		const lives = 5
		if err := crashes(t, seed, lives, "", sites); err != nil {
			t.Fatal(err)
		}
		n += lives
	}
	crashCompactions(t, uint64(first), uint64(want/20), sites)
	for _, s := range writes(t) {
		if sites[s] == 0 && first == 1 {
			t.Errorf("%s writes and was never crashed at", s)
		}
	}
	hit := 0
	for _, k := range sites {
		hit += k
	}
	t.Logf("%d crashes and %d of compactions, %d of them in the middle of one of %d places that write:", n, want/20*compactionLives, hit, len(sites))
	for _, s := range slices.Sorted(maps.Keys(sites)) {
		t.Logf("%5d %s", sites[s], s)
	}
}
