package stream

import (
	"slices"
	"testing"
	"time"

	"github.com/moldau/moldau/window"
)

// Equal keys have one lane, whatever lies behind pointers; others mostly have another.
func TestLane(t *testing.T) {
	type key struct {
		at   *int
		tags []string
		any  any
		when time.Time
	}
	make := func(n int, tag string) key {
		return key{at: &n, tags: []string{tag}, any: float64(n), when: time.Unix(int64(n), 0).UTC()}
	}
	one, same := make(1, "a"), make(1, "a")
	if lane(one) != lane(same) || lane([]byte("x")) != lane(slices.Clone([]byte("x"))) || lane(0.0) != lane(-1/inf()) {
		t.Error("equal keys have two lanes")
	}
	lanes := map[uint64]string{}
	for name, l := range map[string]uint64{"a": lane(make(1, "a")), "n": lane(make(2, "a")), "tag": lane(make(1, "b")), "string": lane("a"),
		"ab": lane([]string{"a", "b"}), "joined": lane([]string{"ab"}), "window": lane(window.Key[string]{Key: "a"}), "true": lane(true)} {
		if other, ok := lanes[l]; ok {
			t.Errorf("%s and %s share a lane", name, other)
		}
		lanes[l] = name
	}
}

func inf() float64 { var zero float64; return 1 / zero }
