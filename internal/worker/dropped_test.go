package worker_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/stream"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) has(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), what)
}

// TestWhatIsLeftOutIsLogged: by an operator and by the error policy, once and not for each record.
func TestWhatIsLeftOutIsLogged(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "named", "numbers")
	numbers := stream.NewTopic("numbers", serde.String, serde.Int64)
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Words).To(Named.PartitionBy(func(string, string, int32) int32 { return -1 }))
		b.Stream(numbers).Foreach(func(stream.Record[string, int64]) error { return nil })
	})
	var out lines
	p := run(t, log, newDisk(), topo, func(c *worker.Config) {
		c.Workers = 1
		c.Errors = task.Errors{Decoding: task.ErrorPolicy{Action: task.Skip}}
		c.Logger = slog.New(slog.NewTextHandler(&out, nil))
	})
	<-p.Ready()
	write(t, log, "words", 1, "a=x")
	write(t, log, "numbers", 1, "a=x")
	eventually(t, "both are told of", func() bool {
		return out.has("operator=sink-1 reason=partitioner records=1") == 1 && out.has(`operator=any reason="error policy" records=1`) == 1
	})
	for range 3 {
		write(t, log, "words", 1, "a=x")
	}
	eventually(t, "all are read", func() bool {
		for _, s := range p.Status() {
			if len(s.Dropped) == 1 && s.DroppedCount[0] == 4 {
				return true
			}
		}
		return false
	})
	if n := out.has("are left out"); n != 2 {
		t.Errorf("%d lines", n)
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
}
