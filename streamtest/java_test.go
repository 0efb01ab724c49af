package streamtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

// refused is a test that fails, and says why.
type refused struct {
	testing.TB
	why string
}

func (r *refused) Fatalf(format string, args ...any) {
	r.why = fmt.Sprintf(format, args...)
	panic(r)
}

// TestJavaOrderKnowsNoSilence: stream time that goes on by itself is nothing that Kafka Streams' driver could order.
func TestJavaOrderKnowsNoSilence(t *testing.T) {
	in := stream.NewTopic("in", serde.String, serde.String)
	build := func(topic stream.Topic[string, string]) func(*stream.Builder) {
		return func(b *stream.Builder) { b.Stream(topic).To(stream.NewTopic("out", serde.String, serde.String)) }
	}
	streamtest.New(t, build(in), streamtest.JavaOrder())
	r := &refused{TB: t}
	defer func() {
		if got := recover(); got != r {
			panic(got)
		}
		if !strings.Contains(r.why, `topic "in" (`) || !strings.Contains(r.why, "leave out one of the two") {
			t.Errorf("refused: %s", r.why)
		}
	}()
	streamtest.New(r, build(in.IdleAfter(time.Second)), streamtest.JavaOrder())
	t.Error("it was taken")
}
