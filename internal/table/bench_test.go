package table

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/serde"
)

// nowhere is a tier that keeps nothing: for measuring what a table costs by itself.
type nowhere struct{}

func (nowhere) Get(dst, _ []byte) ([]byte, bool, error)          { return dst, false, nil }
func (nowhere) Scan(_, _ []byte, _ func(_, _ []byte) bool) error { return nil }
func (nowhere) Apply([]flow.TierChange, int64) error             { return nil }
func (nowhere) DropRange(_, _ []byte) error                      { return nil }
func (nowhere) Position() int64                                  { return -1 }
func (nowhere) Count() int64                                     { return 0 }
func (nowhere) Memory() int64                                    { return 0 }
func (nowhere) Flush() error                                     { return nil }
func (nowhere) Close() error                                     { return nil }

var benchTopic = &flow.Topic{Name: "bench-changelog", Partitions: 1}

func benchEnv(t flow.Tier) flow.StoreEnv {
	return flow.StoreEnv{Spec: &flow.StoreSpec{Name: "bench"}, Changelog: benchTopic, Tier: t}
}

// key16 makes the i-th key, of 16 bytes.
func key16(b []byte, i uint64) []byte {
	b = binary.BigEndian.AppendUint64(b[:0], i*0x9e3779b97f4a7c15)
	return binary.BigEndian.AppendUint64(b, i)
}

// cpu is the CPU time of the process so far: on a shared machine the clock on the wall says little.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkUpdate is a count of random keys, committed every so many updates: Touch, At, Set.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{1e3, 1e5, 1e6} {
		for _, epoch := range []int{1e5, 1e6} {
			b.Run(fmt.Sprintf("keys=%d/epoch=%d", n, epoch), func(b *testing.B) {
				benchUpdate(b, n, epoch, nowhere{}, false)
			})
			b.Run(fmt.Sprintf("keys=%d/epoch=%d/prefetched", n, epoch), func(b *testing.B) {
				benchUpdate(b, n, epoch, nowhere{}, true)
			})
		}
	}
	b.Run("keys=1000000/epoch=100000/tier", func(b *testing.B) {
		db, err := tier.Open(b.TempDir(), tier.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		st, err := db.Store("s", tier.Expect{})
		if err != nil {
			b.Fatal(err)
		}
		benchUpdate(b, 1e6, 1e5, st, true)
	})
}

func benchUpdate(b *testing.B, n, epoch int, t flow.Tier, prefetched bool) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, err := NewKV(benchEnv(t), serde.Bytes, serde.Int64)
	if err != nil {
		b.Fatal(err)
	}
	var out flow.Effects
	e := uint32(1)
	key := make([]byte, 16)
	count := func(i uint64) {
		r, err := s.Touch(key16(key, i))
		if err != nil {
			b.Fatal(err)
		}
		v, _, _ := s.At(r)
		s.Set(r, v+1, 7, nil)
	}
	commit := func() {
		if err := s.Seal(e, &out); err != nil {
			b.Fatal(err)
		}
		if err := s.Done(e, int64(e)); err != nil {
			b.Fatal(err)
		}
		out.Reset()
		e++
	}
	for i := range n {
		count(uint64(i))
		if i%epoch == epoch-1 {
			commit()
		}
	}
	commit()
	runtime.GC()
	runtime.ReadMemStats(&after)
	r := rand.New(rand.NewPCG(3, 4))
	next := make([]flow.In, ahead)
	for i := range next {
		next[i].Key = make([]byte, 16)
	}
	i := 0
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		at := i % ahead
		if at == 0 {
			for i := range next {
				key16(next[i].Key, r.Uint64N(uint64(n)))
			}
			if prefetched {
				s.Prefetch(next)
			}
		}
		count(binary.BigEndian.Uint64(next[at].Key[8:]))
		i++
		if i%epoch == 0 {
			commit()
		}
	}
	b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(s.Memory())/float64(n), "bytes/key")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "heapbytes/key")
}

// BenchmarkSeal is what the end of an epoch costs for each key that changed.
func BenchmarkSeal(b *testing.B) {
	const n = 1_000_000
	for _, dirty := range []int{1e4, 1e5} {
		b.Run(fmt.Sprintf("dirty=%d", dirty), func(b *testing.B) {
			key := make([]byte, 16)
			s, err := NewKV(benchEnv(nowhere{}), serde.Bytes, serde.Int64)
			if err != nil {
				b.Fatal(err)
			}
			var out flow.Effects
			e := uint32(1)
			update := func(i int) {
				r, _ := s.Touch(key16(key, uint64(i)))
				v, _, _ := s.At(r)
				s.Set(r, v+1, 7, nil)
			}
			for i := range int(n) {
				update(i)
			}
			at, used := 0, int64(0)
			for b.Loop() {
				for range dirty {
					update(at)
					at = (at + 7919) % n
				}
				used -= cpu()
				if err := s.Seal(e, &out); err != nil {
					b.Fatal(err)
				}
				if err := s.Done(e, -1); err != nil {
					b.Fatal(err)
				}
				used += cpu()
				e++
				out.Reset()
			}
			b.ReportMetric(float64(used)/float64(b.N)/float64(dirty), "cpu-ns/key")
		})
	}
}

// BenchmarkMap is Go's own map, as a measure of the machine on the day.
func BenchmarkMap(b *testing.B) {
	for _, n := range []int{1e5, 1e6} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			m := make(map[[16]byte]int64, n)
			key := make([]byte, 16)
			for i := range n {
				m[[16]byte(key16(key, uint64(i)))]++
			}
			r := rand.New(rand.NewPCG(3, 4))
			began := cpu()
			for b.Loop() {
				m[[16]byte(key16(key, r.Uint64N(uint64(n))))]++
			}
			b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkRestore is what a changelog record costs on the way into an empty store.
func BenchmarkRestore(b *testing.B) {
	for name, below := range map[string]func(b *testing.B) flow.Tier{
		"table": func(*testing.B) flow.Tier { return nowhere{} },
		"tier": func(b *testing.B) flow.Tier {
			db, err := tier.Open(b.TempDir(), tier.Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { db.Close() })
			return memTier(b, db)
		},
	} {
		b.Run(name, func(b *testing.B) {
			const n = 500_000
			keys, value := make([]byte, 16*n), make([]byte, 8)
			in := make([]flow.In, n)
			for i := range in {
				k := keys[16*i : 16*i+16 : 16*i+16]
				in[i] = flow.In{Offset: int64(i), Key: key16(k, uint64(i)), Value: value}
			}
			var used int64
			for b.Loop() {
				s, err := NewKV(benchEnv(below(b)), serde.Bytes, serde.Int64)
				if err != nil {
					b.Fatal(err)
				}
				used -= cpu()
				for at := 0; at < n; at += 5000 {
					if err := s.Restore(in[at:at+5000], int64(at+5000)); err != nil {
						b.Fatal(err)
					}
				}
				used += cpu()
			}
			b.ReportMetric(float64(used)/float64(b.N)/n, "cpu-ns/key")
		})
	}
}

// BenchmarkWindows is a count by key and window: 1e5 keys, time going on by 1 ms every 10 records, windows of 1 s.
func BenchmarkWindows(b *testing.B) {
	for _, advance := range []int64{1000, 200} {
		b.Run(fmt.Sprintf("size=1000/advance=%d", advance), func(b *testing.B) {
			env := benchEnv(nowhere{})
			env.Spec.Retention = 2000
			s, err := NewWindows(env, serde.Bytes, serde.Int64)
			if err != nil {
				b.Fatal(err)
			}
			var out flow.Effects
			key := make([]byte, 16)
			r := rand.New(rand.NewPCG(3, 4))
			n := int64(0)
			began := cpu()
			for b.Loop() {
				at := n / 10
				k := key16(key, r.Uint64N(1e5))
				for start := max(0, at-1000+advance) / advance * advance; start <= at; start += advance {
					ref, _, err := s.Touch(k, start)
					if err != nil {
						b.Fatal(err)
					}
					v, _, _ := s.At(ref)
					s.Set(ref, v+1, at, nil)
				}
				if n++; n%100_000 == 0 {
					if err := s.Seal(uint32(n/100_000), &out); err != nil {
						b.Fatal(err)
					}
					if err := s.Done(uint32(n/100_000), -1); err != nil {
						b.Fatal(err)
					}
					out.Reset()
				}
			}
			b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkShared is a count in a map that the aggregator writes in place, JSON-encoded at the end of epochs of 1e5.
func BenchmarkShared(b *testing.B) { benchShared(b, 1e5, false) }

// BenchmarkEveryUpdate is the same with each update told of at once, as whoever wants old values of what is written in place needs it.
func BenchmarkEveryUpdate(b *testing.B) {
	for _, epoch := range []int{1e3, 1e4, 1e5} {
		b.Run(fmt.Sprintf("epoch=%d", epoch), func(b *testing.B) { benchShared(b, epoch, true) })
	}
}

func benchShared(b *testing.B, epoch int, told bool) {
	s, err := NewKV(benchEnv(nowhere{}), serde.Bytes, serde.JSON[*struct{ N int64 }]())
	if err != nil {
		b.Fatal(err)
	}
	var out flow.Effects
	key := make([]byte, 16)
	r := rand.New(rand.NewPCG(3, 4))
	n := 0
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		ref, err := s.Touch(key16(key, r.Uint64N(1e4)))
		if err != nil {
			b.Fatal(err)
		}
		v, _, ok := s.At(ref)
		if !ok {
			v = new(struct{ N int64 })
		}
		v.N++
		s.Set(ref, v, 7, nil)
		if told {
			if err := s.Changes(func([]byte, Change[*struct{ N int64 }]) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		if n++; n%epoch == 0 {
			if err := s.Seal(uint32(n/epoch), &out); err != nil {
				b.Fatal(err)
			}
			if err := s.Done(uint32(n/epoch), -1); err != nil {
				b.Fatal(err)
			}
			out.Reset()
		}
	}
	b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
}
