package group

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// fakeTopics are topics of a test.
type fakeTopics struct {
	version    int64
	partitions map[string]int32
}

func topicID(name string) (id [16]byte) {
	copy(id[:], name)
	return id
}

func (f *fakeTopics) Version() int64 { return f.version }
func (f *fakeTopics) Names() []string {
	var names []string
	for n := range f.partitions {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
func (f *fakeTopics) Name(id [16]byte) (string, bool) {
	for n := range f.partitions {
		if topicID(n) == id {
			return n, true
		}
	}
	return "", false
}
func (f *fakeTopics) Lookup(name string) ([16]byte, int32, bool) {
	n, ok := f.partitions[name]
	return topicID(name), n, ok
}

var limits848 = ConsumerLimits{Session: 45 * time.Second, Heartbeat: 5 * time.Second}

func str(s string) *string { return &s }

func join(id string, names ...string) HeartbeatRequest {
	return HeartbeatRequest{MemberID: id, Names: names, RebalanceTimeout: time.Minute, Owned: []Part{}, OwnedGiven: true}
}

func beat(id string, epoch int32, owned ...Part) HeartbeatRequest {
	return HeartbeatRequest{MemberID: id, Epoch: epoch, RebalanceTimeout: -1, Owned: owned, OwnedGiven: true}
}

func TestConsumerGroupHandsOver(t *testing.T) {
	now := time.Unix(1000, 0)
	topics := &fakeTopics{version: 1, partitions: map[string]int32{"t": 4}}
	g := NewConsumer("g", limits848, now)
	must := func(r HeartbeatRequest) HeartbeatResult {
		t.Helper()
		res, err := g.Heartbeat(now, r, topics)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	refused := func(r HeartbeatRequest, want error) {
		t.Helper()
		if _, err := g.Heartbeat(now, r, topics); !errors.Is(err, want) {
			t.Errorf("%+v: %v, want %v", r, err, want)
		}
	}
	a := must(join("a", "t"))
	if a.Epoch != 2 || len(a.Assigned) != 4 || g.State() != "Stable" {
		t.Fatalf("alone: %+v, %s", a, g.State())
	}
	all := a.Assigned
	b := must(join("b", "t"))
	if b.Epoch != 3 || len(b.Assigned) != 0 || !b.AssignedGiven || g.State() != "Reconciling" {
		t.Fatalf("the second member before the first has given up: %+v, %s", b, g.State())
	}
	a = must(beat("a", 2, all...))
	if a.Epoch != 2 || len(a.Assigned) != 2 || !a.AssignedGiven {
		t.Fatalf("told to give up: %+v", a)
	}
	if again := must(beat("a", 2, all...)); again.AssignedGiven || again.Epoch != 2 {
		t.Errorf("told again: %+v", again)
	}
	if b := must(beat("b", 3)); len(b.Assigned) != 0 {
		t.Errorf("gets what the first still has: %+v", b)
	}
	kept := a.Assigned
	a = must(beat("a", 2, kept...))
	if a.Epoch != 3 || a.AssignedGiven {
		t.Errorf("given up: %+v", a)
	}
	// The answer was lost: the old epoch is good, with what is still the member's.
	if a = must(beat("a", 2, kept...)); a.Epoch != 3 {
		t.Errorf("after a lost answer: %+v", a)
	}
	refused(beat("a", 2, all...), kerr.FencedMemberEpoch)
	refused(beat("a", 4), kerr.FencedMemberEpoch)
	refused(beat("c", 2), kerr.UnknownMemberID)
	b = must(beat("b", 3))
	if len(b.Assigned) != 2 || g.State() != "Stable" {
		t.Fatalf("handed over: %+v, %s", b, g.State())
	}
	for _, p := range b.Assigned {
		if slices.Contains(kept, p) {
			t.Errorf("%v belongs to both", p)
		}
	}

	// Commits count for what the member has had since that epoch.
	ok, err := g.ValidateCommit(Commit{MemberID: "a", Generation: 2}, 9)
	if err != nil || ok(kept[0]) != nil || ok(b.Assigned[0]) != kerr.StaleMemberEpoch {
		t.Errorf("a commit of an epoch that is over: %v", err)
	}
	if _, err := g.ValidateCommit(Commit{MemberID: "a", Generation: 3}, 8); err != kerr.UnsupportedVersion {
		t.Errorf("a commit of an old version: %v", err)
	}
	if _, err := g.ValidateCommit(Commit{MemberID: "a", Generation: 4}, 9); err != kerr.StaleMemberEpoch {
		t.Errorf("a commit of an epoch to come: %v", err)
	}

	// A member that does not give up in time is removed.
	must(join("c", "t"))
	slow, other := "a", "b"
	slowParts, otherParts := kept, b.Assigned
	if res := must(beat("a", 3, kept...)); !res.AssignedGiven {
		slow, other, slowParts, otherParts = other, slow, otherParts, slowParts
		if res := must(beat(slow, 3, slowParts...)); !res.AssignedGiven {
			t.Fatal("nobody gives up anything for the third member")
		}
	}
	for range 2 {
		now = now.Add(31 * time.Second)
		g.Tick(now)
		must(beat(other, g.members[other].epoch, otherParts...))
		if g.members[slow] != nil {
			must(beat(slow, 3, slowParts...))
		}
	}
	refused(beat(slow, 3, slowParts...), kerr.UnknownMemberID)

	if _, err := g.Heartbeat(now, HeartbeatRequest{MemberID: other, Epoch: leaveEpoch}, topics); err != nil {
		t.Error(err)
	}
	refused(beat(other, 3), kerr.UnknownMemberID)
}

func TestConsumerGroupStatic(t *testing.T) {
	now := time.Unix(1000, 0)
	topics := &fakeTopics{version: 1, partitions: map[string]int32{"t": 4}}
	g := NewConsumer("g", limits848, now)
	static := func(r HeartbeatRequest) (HeartbeatResult, error) {
		r.InstanceID = str("i")
		return g.Heartbeat(now, r, topics)
	}
	a, err := static(join("a", "t"))
	if err != nil || len(a.Assigned) != 4 {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := static(join("a2", "t")); err != kerr.UnreleasedInstanceID {
		t.Errorf("while the first is there: %v", err)
	}
	if res, err := static(HeartbeatRequest{MemberID: "a", Epoch: leaveStaticEpoch}); err != nil || res.Epoch != leaveStaticEpoch {
		t.Errorf("going away: %+v, %v", res, err)
	}
	epoch := g.epoch
	a2, err := static(join("a2", "t"))
	if err != nil || !slices.Equal(a2.Assigned, a.Assigned) || a2.Epoch != epoch || g.epoch != epoch {
		t.Errorf("back: %+v, %v, group epoch %d after %d", a2, err, g.epoch, epoch)
	}
	if _, err := static(beat("a", 1)); err != kerr.FencedInstanceID {
		t.Errorf("the one before: %v", err)
	}
	if _, err := static(HeartbeatRequest{MemberID: "a2", Epoch: leaveStaticEpoch}); err != nil {
		t.Error(err)
	}
	now = now.Add(46 * time.Second)
	g.Tick(now)
	if empty, _ := g.Empty(); !empty {
		t.Error("a static member that stays away is kept for ever")
	}
}

func TestConsumerGroupRequests(t *testing.T) {
	for what, r := range map[string]HeartbeatRequest{
		"no timeout":             {Names: []string{}, RebalanceTimeout: -1, Owned: []Part{}, OwnedGiven: true},
		"joins with partitions":  {Names: []string{}, Owned: []Part{{}}, OwnedGiven: true},
		"joins without owned":    {Names: []string{}},
		"no subscription":        {Owned: []Part{}, OwnedGiven: true},
		"empty instance":         {Epoch: 1, InstanceID: str("")},
		"goes away, not static":  {Epoch: leaveStaticEpoch},
		"an epoch that is none":  {Epoch: -3},
		"an expression too long": {Epoch: 1, Regex: str(string(make([]byte, 2000)))},
		"a bad expression":       {Epoch: 1, Regex: str("(")},
		"an unknown assignor":    {Epoch: 1, Assignor: str("best")},
	} {
		if r.Check() == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if err := (&HeartbeatRequest{Names: []string{}, Owned: []Part{}, OwnedGiven: true}).Check(); err != nil {
		t.Error(err)
	}
}

func TestConsumerGroupRegex(t *testing.T) {
	now := time.Unix(1000, 0)
	topics := &fakeTopics{version: 1, partitions: map[string]int32{"orders": 1, "orders-v2": 1, "my-orders": 1}}
	g := NewConsumer("g", limits848, now)
	r := join("a")
	r.Names, r.Regex = nil, str("orders.*")
	res, err := g.Heartbeat(now, r, topics)
	if err != nil || len(res.Assigned) != 2 {
		t.Fatalf("the expression matches whole names: %+v, %v", res, err)
	}
	topics.version, topics.partitions["orders-v3"] = 2, 2
	res, _ = g.Heartbeat(now, beat("a", res.Epoch, res.Assigned...), topics)
	if len(res.Assigned) != 4 {
		t.Errorf("a new topic: %+v", res)
	}
	clear := beat("a", res.Epoch, res.Assigned...)
	clear.Regex = str("")
	if res, _ = g.Heartbeat(now, clear, topics); len(res.Assigned) != 0 {
		t.Errorf("an expression taken back: %+v", res)
	}
}

// member is a client that follows the protocol, over a network that loses answers.
type client848 struct {
	id    string
	epoch int32
	owned []Part // what it works on
	told  []Part // what it was told to have
	names []string
	lost  bool // an answer: it says everything again
}

// Whatever comes and goes, no partition is worked on by two members at a time; and when it is quiet again all have as much
// as they should.
func TestConsumerGroupsAtRandom(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 9))
		now := time.Unix(1000, 0)
		topics := &fakeTopics{version: 1, partitions: map[string]int32{"t": 5, "u": 3}}
		g := NewConsumer("g", limits848, now)
		var stored []byte
		clients := map[string]*client848{}
		var order []string
		next := 0
		exchange := func(c *client848, lossy bool) {
			req := beat(c.id, c.epoch, c.owned...)
			if c.epoch == joinEpoch {
				c.owned, c.told = nil, nil
				req = join(c.id, c.names...)
				req.Owned = []Part{}
			} else if c.lost {
				req.RebalanceTimeout, req.Names = time.Minute, c.names
			}
			res, err := g.Heartbeat(now, req, topics)
			if rec, ok := g.Unsaved(); ok {
				stored = rec
			}
			if c.lost = lossy && r.IntN(5) == 0; c.lost {
				return
			}
			switch {
			case err == kerr.FencedMemberEpoch || err == kerr.UnknownMemberID:
				c.epoch, c.owned, c.told = joinEpoch, nil, nil
			case err != nil:
				t.Fatalf("seed %d: %v", seed, err)
			default:
				c.epoch = res.Epoch
				if res.AssignedGiven {
					c.told = res.Assigned
				}
			}
		}
		work := func(c *client848) {
			// What it is told to give up it gives up at once; what it is told to have, later.
			c.owned = slices.DeleteFunc(slices.Clone(c.owned), func(p Part) bool { return !slices.Contains(c.told, p) })
			if r.IntN(2) == 0 {
				c.owned = slices.Clone(c.told)
			}
		}
		check := func(step int) {
			by := map[Part]string{}
			for _, id := range order {
				for _, p := range clients[id].owned {
					if other, taken := by[p]; taken {
						t.Fatalf("seed %d, step %d: %s and %s both work on partition %d", seed, step, other, id, p.Partition)
					}
					by[p] = id
				}
			}
		}
		for step := range 400 {
			switch k := r.IntN(20); {
			case k == 0 && len(order) < 6:
				next++
				id := fmt.Sprintf("m%d", next)
				names := [][]string{{"t"}, {"u"}, {"t", "u"}}[r.IntN(3)]
				clients[id] = &client848{id: id, names: names}
				order = append(order, id)
			case k == 1 && len(order) > 1:
				i := r.IntN(len(order))
				id := order[i]
				order = slices.Delete(order, i, i+1)
				g.Heartbeat(now, HeartbeatRequest{MemberID: id, Epoch: leaveEpoch}, topics)
				delete(clients, id)
			case k == 2:
				topics.version++
				topics.partitions["t"] = min(topics.partitions["t"]+1, 9)
			case k == 3 && stored != nil:
				if rec, ok := g.Unsaved(); ok {
					stored = rec
				}
				var err error
				if g, err = RestoreConsumer("g", limits848, now, stored); err != nil {
					t.Fatal(err)
				}
			case len(order) > 0:
				c := clients[order[r.IntN(len(order))]]
				exchange(c, true)
				work(c)
			}
			now = now.Add(50 * time.Millisecond)
			check(step)
		}
		for range 40 {
			for _, id := range order {
				exchange(clients[id], false)
				clients[id].owned = slices.Clone(clients[id].told)
			}
			check(-1)
		}
		if len(order) > 0 && g.State() != "Stable" {
			t.Fatalf("seed %d: %s when it is quiet", seed, g.State())
		}
		balanced(t, g, topics, fmt.Sprintf("seed %d", seed))
	}
}

// balanced checks that every partition subscribed to is somebody's, and that nobody has two more than another that could
// have one of them.
func balanced(t *testing.T, g *Consumer, topics *fakeTopics, what string) {
	t.Helper()
	for _, m := range g.members {
		for _, o := range g.members {
			if len(m.assigned) <= len(o.assigned)+1 {
				continue
			}
			for p := range m.assigned {
				if _, could := o.topics(topics)[p.Topic]; could {
					t.Errorf("%s: %s has %d partitions, %s has %d", what, m.id, len(m.assigned), o.id, len(o.assigned))
					break
				}
			}
		}
		for topic, n := range m.topics(topics) {
			for p := range n {
				if _, ok := g.owner[Part{topic, p}]; !ok {
					t.Errorf("%s: partition %d is nobody's", what, p)
				}
			}
		}
	}
}

func TestAssignors(t *testing.T) {
	subs := func(had ...[]Part) []subscription {
		var out []subscription
		for i, h := range had {
			out = append(out, subscription{fmt.Sprint(i), map[[16]byte]int32{topicID("t"): 6, topicID("u"): 6}, h})
		}
		return out
	}
	for _, a := range assignors {
		first := a.assign(subs(nil, nil, nil))
		total := 0
		for _, ps := range first {
			if len(ps) != 4 {
				t.Errorf("%s: %d partitions of 12 for one of three", a.name, len(ps))
			}
			total += len(ps)
		}
		if total != 12 {
			t.Errorf("%s: %d partitions of 12", a.name, total)
		}
	}
	// Topics of as many partitions are split alike by ranges.
	for id, ps := range ranges(subs(nil, nil)) {
		var of [2][]int32
		for _, p := range ps {
			i := 0
			if p.Topic == topicID("u") {
				i = 1
			}
			of[i] = append(of[i], p.Partition)
		}
		if !slices.Equal(of[0], of[1]) {
			t.Errorf("member %s: %v of one topic, %v of the other", id, of[0], of[1])
		}
	}
	// The uniform assignor moves no more than it has to.
	before := uniform(subs(nil, nil))
	after := uniform(subs(before["0"], before["1"], nil))
	moved := 0
	for _, id := range []string{"0", "1"} {
		for _, p := range before[id] {
			if !slices.Contains(after[id], p) {
				moved++
			}
		}
	}
	if moved != 4 {
		t.Errorf("a third member moves %d partitions", moved)
	}
	for n := 1; n < 12; n++ {
		var had [][]Part
		for i := range n {
			had = append(had, before["0"][:0:0])
			for id, ps := range uniform(subs(make([][]Part, n)...)) {
				if id == fmt.Sprint(i) {
					had[i] = ps
				}
			}
		}
		after := uniform(subs(append(had, nil)...))
		for i := range n {
			for _, p := range after[fmt.Sprint(i)] {
				if !slices.Contains(had[i], p) {
					t.Errorf("member %d of %d gets a partition because another one comes", i, n)
				}
			}
		}
	}
}

func FuzzRestoreConsumer(f *testing.F) {
	now := time.Unix(1000, 0)
	g := NewConsumer("g", limits848, now)
	g.Heartbeat(now, join("a", "t"), &fakeTopics{version: 1, partitions: map[string]int32{"t": 2}})
	rec, _ := g.Unsaved()
	f.Add(rec)
	f.Add([]byte(`{"v":1,"members":[{"id":"a","unproven":-5,"revoking":[{"topic":"","p":[1]}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := RestoreConsumer("g", limits848, now, b)
		if err == nil {
			g.Tick(now.Add(time.Hour))
			g.Describe()
			g.Unsaved()
		}
	})
}

// Many partitions cost as much as there are, also where one member has them all when another comes.
func TestUniformCost(t *testing.T) {
	const n = 100_000
	topic := topicID("t")
	alone := subscription{member: "a", topics: map[[16]byte]int32{topic: n}}
	alone.had = uniform([]subscription{alone})["a"]
	began := time.Now()
	got := uniform([]subscription{alone, {member: "b", topics: alone.topics}})
	if a, b := len(got["a"]), len(got["b"]); a != n/2 || b != n/2 {
		t.Errorf("they have %d and %d of %d", a, b, n)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
