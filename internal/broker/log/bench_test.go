//go:build unix

package log

import (
	"bytes"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkAppend writes batches to six partitions from several callers, as connections would: the time is per record.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1000} {
		for _, perBatch := range []int{1, 16, 256} {
			for _, d := range []Durability{OS, Sync} {
				b.Run(fmt.Sprintf("%dB/batch=%d/%s", size, perBatch, d), func(b *testing.B) { benchAppend(b, size, perBatch, d, nil) })
			}
		}
	}
	// Without a disk: what the code itself costs.
	for _, perBatch := range []int{1, 16} {
		b.Run(fmt.Sprintf("1000B/batch=%d/memory", perBatch), func(b *testing.B) { benchAppend(b, 1000, perBatch, OS, nullFS{vfs.NewMem()}) })
	}
}

func benchAppend(b *testing.B, size, perBatch int, d Durability, fs vfs.FS) {
	o := Options{FS: fs, Dir: b.TempDir(), Durability: d, Logger: quiet()}
	l, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	const callers, inFlight = 8, 4
	var parts []*Partition
	for i := range 6 {
		p, err := l.CreatePartition(id(1, int32(i)), "t", Config{})
		if err != nil {
			b.Fatal(err)
		}
		parts = append(parts, p)
	}
	s := spec{}
	for range perBatch {
		s.records = append(s.records, kv("key", string(bytes.Repeat([]byte("x"), size-20))))
	}
	batch := s.build(b)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			slots := make(chan struct{}, inFlight)
			for i := c; i < b.N/perBatch; i += callers {
				slots <- struct{}{}
				// A request's buffer is the log's to keep, so each needs its own.
				l.Submit(Write{Appends: []Append{{Partition: parts[i%len(parts)], Batch: bytes.Clone(batch)}}}, WaitSync, func(err error) {
					if err != nil {
						b.Error(err)
					}
					<-slots
				})
			}
			for range inFlight {
				slots <- struct{}{}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
}

// cpuTime is what the process has used, which a busy machine does not change.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// nullFS takes writes and forgets them.
type nullFS struct{ *vfs.MemFS }

type nullFile struct{ vfs.File }

func (f nullFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.MemFS.OpenReadWrite(name, c, o...)
	return nullFile{file}, err
}
func (f nullFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.MemFS.Create(name, c)
	return nullFile{file}, err
}

func (f nullFile) Write(b []byte) (int, error)            { return len(b), nil }
func (f nullFile) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
