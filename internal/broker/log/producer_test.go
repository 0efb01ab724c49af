package log

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
)

// step is one batch or marker of a producer, and what must become of it.
type step struct {
	epoch     int16
	seq       int32
	n         int // records; 0: a marker
	txn, tv2  bool
	commit    bool
	coord     int32
	want      *kerr.Error
	duplicate int64 // base offset of the batch repeated, +1; 0: not a duplicate
}

func TestIdempotence(t *testing.T) {
	for name, steps := range map[string][]step{
		"in order":                  {{seq: 0, n: 2}, {seq: 2, n: 1}, {seq: 3, n: 4}},
		"unknown, any sequence":     {{seq: 17, n: 1}, {seq: 18, n: 1}},
		"unknown, TV2 outside txn":  {{seq: 17, n: 1, tv2: true}},
		"unknown, TV2 in txn":       {{seq: 17, n: 1, tv2: true, txn: true, want: kerr.OutOfOrderSequenceNumber}, {seq: 0, n: 1, tv2: true, txn: true}},
		"unknown, TV1 in txn":       {{seq: 17, n: 1, txn: true}},
		"gap":                       {{seq: 0, n: 2}, {seq: 3, n: 1, want: kerr.OutOfOrderSequenceNumber}, {seq: 2, n: 1}},
		"repeated":                  {{seq: 0, n: 2}, {seq: 0, n: 2, duplicate: 1}, {seq: 2, n: 1}, {seq: 0, n: 2, duplicate: 1}},
		"partly repeated":           {{seq: 0, n: 2}, {seq: 0, n: 1, want: kerr.OutOfOrderSequenceNumber}, {seq: 1, n: 1, want: kerr.OutOfOrderSequenceNumber}},
		"five back":                 {{seq: 0, n: 1}, {seq: 1, n: 1}, {seq: 2, n: 1}, {seq: 3, n: 1}, {seq: 4, n: 1}, {seq: 0, n: 1, duplicate: 1}},
		"six back":                  {{seq: 0, n: 1}, {seq: 1, n: 1}, {seq: 2, n: 1}, {seq: 3, n: 1}, {seq: 4, n: 1}, {seq: 5, n: 1}, {seq: 0, n: 1, want: kerr.OutOfOrderSequenceNumber}, {seq: 1, n: 1, duplicate: 2}},
		"older epoch":               {{epoch: 2, seq: 0, n: 1}, {epoch: 1, seq: 1, n: 1, want: kerr.InvalidProducerEpoch}},
		"newer epoch":               {{epoch: 2, seq: 0, n: 1}, {epoch: 3, seq: 1, n: 1, want: kerr.OutOfOrderSequenceNumber}, {epoch: 3, seq: 0, n: 1}, {epoch: 3, seq: 1, n: 1}, {epoch: 2, seq: 0, n: 1, want: kerr.InvalidProducerEpoch}},
		"repeat in newer epoch":     {{epoch: 2, seq: 0, n: 1}, {epoch: 3, seq: 0, n: 1}, {epoch: 3, seq: 0, n: 1, duplicate: 2}},
		"wraps between":             {{seq: math.MaxInt32, n: 1}, {seq: 1, n: 1, want: kerr.OutOfOrderSequenceNumber}, {seq: 0, n: 1}, {seq: math.MaxInt32, n: 1, duplicate: 1}},
		"wraps inside":              {{seq: math.MaxInt32 - 1, n: 4}, {seq: 2, n: 1}, {seq: math.MaxInt32 - 1, n: 4, duplicate: 1}},
		"data outside open txn":     {{seq: 0, n: 1, txn: true}, {seq: 1, n: 1, want: kerr.InvalidTxnState}, {commit: true}, {seq: 1, n: 1}},
		"TV1 goes on behind marker": {{seq: 0, n: 1, txn: true}, {commit: true}, {seq: 1, n: 1, txn: true}},
		"TV2 starts again":          {{seq: 0, n: 1, txn: true}, {epoch: 1, commit: true, tv2: true}, {epoch: 0, seq: 1, n: 1, txn: true, want: kerr.InvalidProducerEpoch}, {epoch: 1, seq: 1, n: 1, txn: true, want: kerr.OutOfOrderSequenceNumber}, {epoch: 1, seq: 0, n: 1, txn: true}},
		"marker, older epoch":       {{epoch: 3, seq: 0, n: 1, txn: true}, {epoch: 2, want: kerr.InvalidProducerEpoch}, {epoch: 3}},
		"TV2 marker, equal epoch":   {{epoch: 3, seq: 0, n: 1, txn: true}, {epoch: 3, tv2: true, want: kerr.InvalidProducerEpoch}, {epoch: 4, tv2: true}, {epoch: 4, tv2: true}, {epoch: 3, tv2: true, want: kerr.InvalidProducerEpoch}},
		"TV1 marker, repeated":      {{epoch: 3, seq: 0, n: 1, txn: true}, {epoch: 3}, {epoch: 3}},
		"marker, unknown producer":  {{epoch: 3, tv2: true}, {epoch: 2, seq: 0, n: 1, want: kerr.InvalidProducerEpoch}},
		"old coordinator":           {{seq: 0, n: 1, txn: true}, {coord: 5}, {coord: 4, want: kerr.TransactionCoordinatorFenced}, {coord: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			l := open(t, fs)
			p := create(t, l, 0, Config{})
			for i, x := range steps {
				_, end, _ := p.Offsets()
				var w Write
				if x.n == 0 {
					w.Markers = []Marker{{Partition: p, ProducerID: 1, Epoch: x.epoch, CoordinatorEpoch: x.coord, Commit: x.commit, TV2: x.tv2}}
				} else {
					s := spec{pid: 1, epoch: x.epoch, seq: x.seq, txn: x.txn}
					for range x.n {
						s.records = append(s.records, kv("k", "v"))
					}
					w.Appends = []Append{{Partition: p, Batch: s.build(t), TV2: x.tv2}}
				}
				r, err := submit(l, w)
				if err != nil {
					t.Fatal(err)
				}
				got, _ := r[0].Err.(*kerr.Error)
				if got != x.want {
					t.Fatalf("step %d: %v (%s), want %v", i, got, r[0].ErrMessage, x.want)
				}
				if r[0].Duplicate != (x.duplicate > 0) || x.duplicate > 0 && r[0].BaseOffset != x.duplicate-1 || x.duplicate == 0 && x.want == nil && r[0].BaseOffset != end {
					t.Fatalf("step %d: %+v at %d", i, r[0], end)
				}
				// What a restart knows must be the same: from the write-ahead log alone, and from a checkpoint.
				if i%2 == 0 {
					if err := l.Checkpoint(); err != nil {
						t.Fatal(err)
					}
				}
				want := p.Producers()
				closeLog(t, l)
				l = open(t, fs)
				p = create(t, l, 0, Config{})
				if got := p.Producers(); len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
					t.Fatalf("step %d: behind a restart %+v, want %+v", i, got, want)
				}
			}
			closeLog(t, l)
		})
	}
}

// TestBeginnings is about batches of transactions that nothing has been written of: what was refused is not passed by what
// was sent behind it.
func TestBeginnings(t *testing.T) {
	type send struct {
		step
		refused bool // by the coordinator
	}
	for name, steps := range map[string][]send{
		"passed":                {{step{seq: 0, n: 1, txn: true}, true}, {step{seq: 1, n: 1, txn: true, want: kerr.OutOfOrderSequenceNumber}, false}, {step{seq: 0, n: 1, txn: true}, false}, {step{seq: 1, n: 1, txn: true}, false}},
		"passed outside of it":  {{step{seq: 0, n: 3, txn: true}, true}, {step{seq: 1, n: 1, want: kerr.OutOfOrderSequenceNumber}, false}, {step{seq: 0, n: 1}, false}, {step{seq: 1, n: 1, want: kerr.OutOfOrderSequenceNumber}, false}},
		"a lower one counts":    {{step{seq: 5, n: 1, txn: true}, true}, {step{seq: 3, n: 1, txn: true}, true}, {step{seq: 5, n: 1, txn: true, want: kerr.OutOfOrderSequenceNumber}, false}, {step{seq: 3, n: 1, txn: true}, false}, {step{seq: 4, n: 1, txn: true}, false}},
		"a new epoch begins":    {{step{seq: 0, n: 1, txn: true}, true}, {step{epoch: 1, seq: 7, n: 1, txn: true}, false}},
		"an old epoch does not": {{step{epoch: 1, seq: 4, n: 1, txn: true}, true}, {step{seq: 0, n: 1, txn: true}, true}, {step{epoch: 1, seq: 4, n: 1, txn: true}, false}},
		"ended":                 {{step{seq: 0, n: 1, txn: true}, true}, {step{}, false}, {step{epoch: 1, seq: 1, n: 1, txn: true, want: kerr.OutOfOrderSequenceNumber}, false}, {step{epoch: 1, seq: 0, n: 1, txn: true}, false}},
		"the next, TV2":         {{step{epoch: 1, seq: 0, n: 1, txn: true, tv2: true}, true}, {step{epoch: 1, tv2: true}, false}, {step{epoch: 1, seq: 1, n: 1, want: kerr.OutOfOrderSequenceNumber}, false}},
		"open already":          {{step{seq: 3, n: 1, txn: true}, false}, {step{seq: 0, n: 1, txn: true}, true}, {step{seq: 4, n: 1, txn: true}, false}},
		"TV2 begins at 0":       {{step{seq: 3, n: 1, txn: true, tv2: true}, true}, {step{seq: 3, n: 1, want: kerr.OutOfOrderSequenceNumber}, false}, {step{seq: 0, n: 1}, false}},
		"by the log":            {{step{seq: 0, n: 2, txn: true}, false}, {step{}, false}, {step{seq: 1, n: 2, txn: true, want: kerr.OutOfOrderSequenceNumber}, false}, {step{seq: 2, n: 1, want: kerr.OutOfOrderSequenceNumber}, false}},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, vfs.NewMem())
			defer closeLog(t, l)
			p := create(t, l, 0, Config{})
			for i, x := range steps {
				w := Write{Markers: []Marker{{Partition: p, ProducerID: 1, Epoch: x.epoch, TV2: x.tv2}}}
				if x.n > 0 {
					s := spec{pid: 1, epoch: x.epoch, seq: x.seq, txn: x.txn, records: slices.Repeat([]rec{kv("k", "v")}, x.n)}
					w = Write{Appends: []Append{{Partition: p, Batch: s.build(t), TV2: x.tv2}}}
				}
				if x.refused {
					l.Refused(w.Appends)
					continue
				}
				r, err := submit(l, w)
				if err != nil {
					t.Fatal(err)
				}
				if got, _ := r[0].Err.(*kerr.Error); got != x.want {
					t.Fatalf("step %d: %v (%s), want %v", i, got, r[0].ErrMessage, x.want)
				}
			}
		})
	}
}

func TestBeginningsExpire(t *testing.T) {
	clock := newClock()
	l := open(t, vfs.NewMem(), func(o *Options) { o.Now = clock.now; o.ProducerExpiry = time.Hour })
	defer closeLog(t, l)
	p := create(t, l, 0, Config{})
	for i := range 2 {
		s := spec{pid: int64(i), txn: true, records: []rec{kv("k", "v")}}
		l.Refused([]Append{{Partition: p, Batch: s.build(t)}})
		clock.add(time.Hour / 2)
	}
	l.ExpireProducers()
	if len(p.beginnings) != 1 || p.beginnings[1] == nil {
		t.Fatalf("%v: want the young one", p.beginnings)
	}
}

func TestProducersExpire(t *testing.T) {
	clock := newClock()
	l := open(t, vfs.NewMem(), func(o *Options) { o.Now = clock.now; o.ProducerExpiry = time.Hour })
	defer closeLog(t, l)
	p := create(t, l, 0, Config{})
	put(t, l, p, spec{pid: 1, records: []rec{kv("k", "v")}})
	put(t, l, p, spec{pid: 2, txn: true, records: []rec{kv("k", "v")}})
	clock.add(time.Hour / 2)
	put(t, l, p, spec{pid: 3, records: []rec{kv("k", "v")}})
	clock.add(time.Hour / 2)
	l.ExpireProducers()
	got := p.Producers()
	if len(got) != 2 || got[0].ProducerID != 2 || got[1].ProducerID != 3 {
		t.Fatalf("%+v: want the one with an open transaction, and the young one", got)
	}
	if first, ok := p.OpenTxn(2); !ok || first != 1 {
		t.Fatal(first, ok)
	}
	if _, ok := p.OpenTxn(3); ok {
		t.Fatal("producer 3 has no transaction")
	}
}
