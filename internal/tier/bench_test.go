package tier

import (
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/moldau/moldau/internal/flow"
)

// BenchmarkApply hands down commits of 20,000 changes among 100,000 keys, as a count does.
func BenchmarkApply(b *testing.B) {
	const keys, dirty = 100_000, 20_000
	r := rand.New(rand.NewPCG(1, 2))
	commits := make([][]flow.TierChange, 32)
	for i := range commits {
		for range dirty {
			bytes := make([]byte, 0, 32)
			bytes = binary.BigEndian.AppendUint64(bytes, r.Uint64N(keys)*0x9e3779b97f4a7c15)
			bytes = binary.BigEndian.AppendUint64(bytes, 0)
			bytes = binary.BigEndian.AppendUint64(bytes, uint64(i))
			bytes = binary.BigEndian.AppendUint64(bytes, 1)
			commits[i] = append(commits[i], flow.TierChange{Key: bytes[:16:16], Value: bytes[16:]})
		}
	}
	s := &store{d: &directory{o: Options{FlushBytes: 32 << 20}}, gather: newGather()}
	began, n := cpu(), 0
	for b.Loop() {
		if err := s.Apply(commits[n%len(commits)], int64(n)); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(cpu()-began)/float64(n*dirty), "cpu-ns/change")
	b.ReportMetric(float64(s.gather.memory())/float64(len(s.gather.entries)), "bytes/key")
}

// cpu is the CPU time of the process so far, ns: on a shared machine the clock on the wall says little.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
