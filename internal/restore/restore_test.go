package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// fakeReader serves what feed was given, once, to whoever is assigned.
type fakeReader struct {
	assigned map[cluster.TP]int64
	assigns  int
	queue    []cluster.Batch
	position map[cluster.TP]int64
	released int
	err      error
}

func (r *fakeReader) Assign(from map[cluster.TP]int64) { r.assigned = from; r.assigns++ }
func (r *fakeReader) Poll(ctx context.Context) ([]cluster.Batch, error) {
	q := r.queue
	r.queue = nil
	return q, r.err
}
func (r *fakeReader) Position(tp cluster.TP) (int64, bool) { at, ok := r.position[tp]; return at, ok }
func (r *fakeReader) Close()                               {}

func (r *fakeReader) feed(tp cluster.TP, next int64, offsets ...int64) {
	b := cluster.Batch{TP: tp, Next: next, Release: func() { r.released++ }}
	for _, o := range offsets {
		b.Records = append(b.Records, flow.In{Offset: o, Key: []byte("k"), Value: []byte("value")})
	}
	r.queue = append(r.queue, b)
}

// memory notes what it is given.
type memory struct {
	flow.Store
	seen []string
	err  error
}

func (m *memory) Restore(records []flow.In, next int64) error {
	if m.err != nil {
		return m.err
	}
	for _, r := range records {
		m.seen = append(m.seen, fmt.Sprint(r.Offset))
	}
	m.seen = append(m.seen, fmt.Sprintf("next=%d", next))
	return nil
}

func report(ps []Progress) string {
	var b strings.Builder
	for _, p := range ps {
		fmt.Fprintf(&b, "%s[%d] +%d (%d B) at %d", p.Topic, p.Partition, p.Records, p.Bytes, p.Position())
		if p.Reached {
			b.WriteString(" reached")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func poll(t *testing.T, f *Follower) string {
	t.Helper()
	ps, err := f.Poll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return report(ps)
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%swant:\n%s", what, got, want)
	}
}

func TestManyPartitionsUntilTheirEnds(t *testing.T) {
	a, b, c := cluster.TP{Topic: "a"}, cluster.TP{Topic: "b", Partition: 1}, cluster.TP{Topic: "c"}
	r := &fakeReader{position: map[cluster.TP]int64{}}
	sa, sb, sc := &memory{}, &memory{}, &memory{}
	f := New(r)
	f.Add(&Target{TP: a, Store: sa, Positioned: true, From: 3, End: 6}, &Target{TP: b, Store: sb, Positioned: true, From: -1, End: 9},
		&Target{TP: c, Store: sc, Positioned: true, From: 4, End: 4})
	if r.assigns != 1 || len(r.assigned) != 2 || r.assigned[a] != 3 || r.assigned[b] != -1 {
		t.Fatalf("assigned %v", r.assigned)
	}
	expect(t, "nothing to do for c", poll(t, f), "c[0] +0 (0 B) at 4 reached\n")

	r.feed(b, 3, 0, 2)
	r.feed(a, 5, 2, 3, 4) // 2 was fetched before
	r.feed(cluster.TP{Topic: "old"}, 5, 1)
	expect(t, "first", poll(t, f), "a[0] +2 (12 B) at 5\nb[1] +2 (12 B) at 3\n")
	if r.released != 3 {
		t.Errorf("%d batches released", r.released)
	}

	// The last record of a is a marker: the reader's position alone says so.
	r.position[a] = 6
	expect(t, "marker", poll(t, f), "a[0] +0 (0 B) at 6 reached\n")
	if _, ok := r.assigned[a]; ok || len(r.assigned) != 1 || r.assigned[b] != 3 {
		t.Errorf("assigned %v", r.assigned)
	}
	r.feed(b, 10, 4, 9)
	expect(t, "b", poll(t, f), "b[1] +2 (12 B) at 10 reached\n")
	if f.Len() != 0 {
		t.Errorf("%d targets left", f.Len())
	}
	if got := fmt.Sprint(sa.seen, sb.seen, sc.seen); got != "[3 4 next=5 next=6] [0 2 next=3 4 9 next=10] []" {
		t.Errorf("applied %s", got)
	}
}

type countingLock struct{ locked, unlocked int }

func (l *countingLock) Lock()   { l.locked++ }
func (l *countingLock) Unlock() { l.unlocked++ }

func TestAGlobalTableGoesOnAndHasNoPositionOfItsOwn(t *testing.T) {
	tp := cluster.TP{Topic: "airports"}
	r := &fakeReader{}
	s, l := &memory{}, &countingLock{}
	f := New(r)
	f.Add(&Target{TP: tp, Store: s, From: 0, End: 0, Follow: true, Lock: l})
	expect(t, "empty", poll(t, f), "airports[0] +0 (0 B) at 0 reached\n")
	r.feed(tp, 1, 0)
	expect(t, "later", poll(t, f), "airports[0] +1 (6 B) at 1\n")
	if !slices.Equal(s.seen, []string{"0", "next=-1"}) || l.locked != 1 || l.unlocked != 1 {
		t.Errorf("%v, %+v", s.seen, l)
	}
	f.Remove(tp)
	if len(r.assigned) != 0 {
		t.Errorf("still assigned: %v", r.assigned)
	}
}

func TestErrors(t *testing.T) {
	tp := cluster.TP{Topic: "a"}
	r := &fakeReader{}
	s := &memory{err: errors.New("disk full")}
	f := New(r)
	f.Add(&Target{TP: tp, Store: s, From: 7, End: 20})
	r.feed(tp, 10, 8, 9)
	r.feed(tp, 12, 10, 11)
	_, err := f.Poll(t.Context())
	if !errors.Is(err, ErrApply) || !strings.Contains(err.Error(), "a[0] from offset 7: disk full") {
		t.Errorf("error %v", err)
	}
	if r.released != 2 {
		t.Errorf("%d batches released", r.released)
	}
	r.err = cluster.ErrOutOfRange
	if _, err := f.Poll(t.Context()); !errors.Is(err, cluster.ErrOutOfRange) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.err = context.Canceled
	if _, err := f.Poll(ctx); err != nil {
		t.Errorf("the end of the context is an error: %v", err)
	}
}

// seeking is a reader of one partition after another, as real ones are: Poll moves on, Assign puts back.
type seeking struct {
	logs map[cluster.TP]int64 // ends
	at   map[cluster.TP]int64
	tps  []cluster.TP
}

func (r *seeking) Assign(from map[cluster.TP]int64) {
	for tp, at := range from {
		r.at[tp] = at
	}
}

func (r *seeking) Poll(context.Context) (batches []cluster.Batch, _ error) {
	for _, tp := range r.tps {
		b := cluster.Batch{TP: tp, Next: r.logs[tp]}
		for o := r.at[tp]; o < b.Next; o++ {
			b.Records = append(b.Records, flow.In{Offset: o})
		}
		if r.at[tp] = b.Next; len(b.Records) > 0 {
			batches = append(batches, b)
		}
	}
	return batches, nil
}

func (r *seeking) Position(tp cluster.TP) (int64, bool) { at, ok := r.at[tp]; return at, ok }
func (r *seeking) Close()                               {}

func TestARefusalLosesNothing(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, ctx := range map[string]context.Context{"in time": t.Context(), "as the context ends": ended} {
		t.Run(name, func(t *testing.T) {
			a, b := cluster.TP{Topic: "a"}, cluster.TP{Topic: "b"}
			r := &seeking{logs: map[cluster.TP]int64{a: 2, b: 3}, at: map[cluster.TP]int64{}, tps: []cluster.TP{a, b}}
			sa, sb := &memory{err: errors.New("disk full")}, &memory{}
			ta := &Target{TP: a, Store: sa, Positioned: true, From: 0, End: 2}
			tb := &Target{TP: b, Store: sb, Positioned: true, From: 0, End: 3}
			f := New(r)
			f.Add(ta, tb)
			if ps, err := f.Poll(ctx); !errors.Is(err, ErrApply) || len(ps) > 0 {
				t.Fatalf("progress %v, error %v", ps, err)
			}
			if ta.Position() != 0 || tb.Position() != 0 {
				t.Fatalf("positions %d and %d", ta.Position(), tb.Position())
			}
			sa.err = nil
			expect(t, "again", poll(t, f), "a[0] +2 (0 B) at 2 reached\nb[0] +3 (0 B) at 3 reached\n")
			if got := fmt.Sprint(sa.seen, sb.seen); got != "[0 1 next=2] [0 1 2 next=3]" {
				t.Errorf("applied %s", got)
			}
		})
	}
}

// TestReachedByAPollThatFailed: what one target has reached is reported once another's trouble is over.
func TestReachedByAPollThatFailed(t *testing.T) {
	a, b := cluster.TP{Topic: "a"}, cluster.TP{Topic: "b"}
	r := &seeking{logs: map[cluster.TP]int64{a: 2, b: 3}, at: map[cluster.TP]int64{}, tps: []cluster.TP{a, b}}
	sb := &memory{err: errors.New("disk full")}
	f := New(r)
	f.Add(&Target{TP: a, Store: &memory{}, From: 0, End: 2}, &Target{TP: b, Store: sb, From: 0, End: 3})
	if _, err := f.Poll(t.Context()); !errors.Is(err, ErrApply) {
		t.Fatal(err)
	}
	sb.err = nil
	expect(t, "again", poll(t, f), "a[0] +0 (0 B) at 2 reached\nb[0] +3 (0 B) at 3 reached\n")
}

// TestNothingAfterTheEnd: what lies behind the end of a source topic's restore is input.
func TestNothingAfterTheEnd(t *testing.T) {
	tp := cluster.TP{Topic: "a"}
	r := &fakeReader{position: map[cluster.TP]int64{tp: 12}}
	s := &memory{}
	f := New(r)
	f.Add(&Target{TP: tp, Store: s, Positioned: true, From: 3, End: 6, Replay: func(slab []byte, r *flow.In) ([]byte, bool, error) { return slab, true, nil }})
	r.feed(tp, 12, 3, 5, 6, 11)
	expect(t, "the end within a batch", poll(t, f), "a[0] +2 (12 B) at 6 reached\n")
	if got := fmt.Sprint(s.seen); got != "[3 5 next=6]" {
		t.Errorf("applied %s", got)
	}
}

// TestReplay: records of another's topic are turned into the store's, or left out.
func TestReplay(t *testing.T) {
	tp := cluster.TP{Topic: "a"}
	for name, fail := range map[string]error{"taken": nil, "refused": errors.New("no such number")} {
		t.Run(name, func(t *testing.T) {
			r := &fakeReader{position: map[cluster.TP]int64{}}
			s := &values{}
			f := New(r)
			f.Add(&Target{TP: tp, Store: s, Positioned: true, From: 0, End: 4, Replay: func(slab []byte, r *flow.In) ([]byte, bool, error) {
				from := len(slab)
				slab = append(slab, fmt.Sprint("offset ", r.Offset)...)
				r.Value = slab[from:]
				return slab, r.Offset != 1, fail
			}})
			r.feed(tp, 4, 0, 1, 2, 3)
			_, err := f.Poll(t.Context())
			if fail != nil {
				if !errors.Is(err, ErrApply) || !errors.Is(err, fail) || !strings.Contains(err.Error(), "offset 0") {
					t.Errorf("error %v", err)
				}
				return
			}
			if got := fmt.Sprint(s.seen); err != nil || got != "[offset 0 offset 2 offset 3]" {
				t.Errorf("applied %s, error %v", got, err)
			}
		})
	}
}

// values notes the values it is given.
type values struct {
	flow.Store
	seen []string
}

func (v *values) Restore(records []flow.In, _ int64) error {
	for _, r := range records {
		v.seen = append(v.seen, string(r.Value))
	}
	return nil
}
