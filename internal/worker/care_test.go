package worker

import (
	"testing"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/restore"
	"github.com/moldau/moldau/internal/tier"
)

// fat holds some bytes, of which only floor must stay.
type fat struct {
	flow.Store
	holds, floor int64
}

func (f *fat) Memory() int64 { return f.holds }
func (f *fat) Shrink(want int64) int64 {
	freed := min(want, f.holds-f.floor)
	f.holds -= freed
	return freed
}

// TestWhatIsRestoredIsInTheBudget: stores that are being restored and global tables count, and give up their part.
func TestWhatIsRestoredIsInTheBudget(t *testing.T) {
	n := &Node{cfg: Config{Memory: 1 << 20, Now: time.Now}}
	k := newKeeper(n, nil)
	a, b := &fat{holds: 600 << 10}, &fat{holds: 200 << 10, floor: 200 << 10}
	s := &slot{}
	k.opening[s] = &opening{h: &hosted{stores: []*opened{{store: a}, {store: b}}}}
	check := func(what string, err error, counted, wantA int64) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if got := n.memory.Load() >> 10; got != counted {
			t.Errorf("%s: %d KB counted, want %d", what, got, counted)
		}
		if a.holds>>10 != wantA {
			t.Errorf("%s: the store holds %d KB, want %d", what, a.holds>>10, wantA)
		}
	}
	check("within", k.keepBudget(), 800, 600)

	a.holds = 1848 << 10
	check("not looked at yet", k.keepBudget(), 800, 1848)
	k.byTarget = nil
	if err := k.note([]restore.Progress{{Target: &restore.Target{}, Bytes: n.weighing()}}); err != nil {
		t.Fatal(err)
	}
	check("restored", k.keepBudget(), 2048, 824)
	k.restored = n.weighing()
	check("afterwards", k.keepBudget(), 1024, 824)

	g := &fat{holds: 1024 << 10}
	n.globals = []*global{{name: "global-g", store: g, db: tier.NewMem()}}
	check("a global table", n.keepGlobalBudget(n.weighing()), 2048, 824)
	if g.holds>>10 != 512 {
		t.Errorf("the global table holds %d KB", g.holds>>10)
	}

	delete(k.opening, s)
	check("handed over", k.keepBudget(), 1024, 824)
}
