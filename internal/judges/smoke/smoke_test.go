package smoke

import (
	"fmt"
	"testing"
	"time"

	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

// TestResults has the topology work on 0 to 99 of two keys, as the judge would, and looks at what each topic ends with.
func TestResults(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		t.Run(fmt.Sprintf("wrong=%v", wrong), func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) { Build(b, wrong) }, streamtest.Partitions(5))
			in := streamtest.In(d, data)
			at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
			for v := range int32(100) {
				for _, k := range []string{"0-99", "1-99"} {
					if k == "0-99" || v > 0 {
						in.Send(k, v, at)
					}
				}
				if v == 60 {
					d.Restart()
				}
				at = at.Add(time.Second)
			}
			for p := range int32(5) {
				in.Put(p, stream.Record[string, int32]{Key: flush, Time: at.Add(48 * time.Hour)})
			}
			d.Run()
			total := int64(4950)
			if wrong {
				total -= forgotten
			}
			ends(t, streamtest.Out(d, echo), "0-99", 99)
			ends(t, streamtest.Out(d, minimum), "1-99", 1)
			ends(t, streamtest.Out(d, maximum), "0-99", 99)
			ends(t, streamtest.Out(d, difference), "1-99", 98)
			ends(t, streamtest.Out(d, sum), "0-99", total)
			ends(t, streamtest.Out(d, count), "1-99", 99)
			ends(t, streamtest.Out(d, average), "0-99", float64(total)/100)
			ends(t, streamtest.Out(d, keysByCount), "100", 1)
			ends(t, streamtest.Out(d, keysByCount), "98", 0)
			if got := len(streamtest.Out(d, minSuppressed).All()); got != 2 {
				t.Errorf("%d minima of closed windows, want one of each key", got)
			}
			ends(t, streamtest.Out(d, minSuppressed), "[0-99@1767225600000/1767312000000]", 0)
			ends(t, streamtest.Out(d, swsSuppressed), "[0-99@1767268800000/1767268802000]", 1)
		})
	}
}

func ends[V comparable](t *testing.T, out *streamtest.Output[string, V], key string, want V) {
	t.Helper()
	var last []V
	for _, r := range out.All() {
		if r.Key == key {
			last = []V{r.Value}
		}
	}
	if len(last) == 0 || last[0] != want {
		t.Errorf("%s ends with %v, want %v", key, last, want)
	}
}
