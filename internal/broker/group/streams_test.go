package group

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

var limits1071 = StreamsLimits{Session: 45 * time.Second, Heartbeat: 5 * time.Second}

// wordcount reads words, writes them by word into a repartition topic and counts those.
func wordcount() *Topology {
	return &Topology{Epoch: 1, Subtopologies: []Subtopology{
		{ID: "0", Sources: []string{"words"}, Sinks: []string{"app-by-repartition"}},
		{ID: "1", Repartitions: []InternalTopic{{Name: "app-by-repartition"}}, Changelogs: []InternalTopic{{Name: "app-count-changelog"}},
			Copartitioned: [][]string{{"app-by-repartition"}}},
	}}
}

// wordTopics are the topics of wordcount, internal ones included, with n partitions.
func wordTopics(n int32) *fakeTopics {
	return &fakeTopics{version: 1, partitions: map[string]int32{"words": n, "app-by-repartition": n, "app-count-changelog": n}}
}

func enter(id, process string, t *Topology) StreamsRequest {
	return StreamsRequest{MemberID: id, Process: &process, RebalanceTimeout: time.Minute, Topology: t, Owned: Tasks{}}
}

func report(id string, epoch int32, owned Tasks) StreamsRequest {
	return StreamsRequest{MemberID: id, Epoch: epoch, RebalanceTimeout: -1, Owned: owned}
}

func codes(status []Status) (out []int8) {
	for _, s := range status {
		out = append(out, s.Code)
	}
	return out
}

func TestStreamsGroupHandsOver(t *testing.T) {
	now := time.Unix(1000, 0)
	topics := wordTopics(2)
	g := NewStreams("g", limits1071, now)
	must := func(r StreamsRequest) StreamsResult {
		t.Helper()
		res, err := g.Heartbeat(now, r, topics)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	refused := func(r StreamsRequest, want error) {
		t.Helper()
		if _, err := g.Heartbeat(now, r, topics); !errors.Is(err, want) {
			t.Errorf("%+v: %v, want %v", r, err, want)
		}
	}
	a := must(enter("a", "p", wordcount()))
	if a.Epoch != 2 || len(a.Assigned) != 4 || len(a.Status) != 0 || g.State() != "Stable" {
		t.Fatalf("alone: %+v, %s", a, g.State())
	}
	all := maps.Clone(a.Assigned)
	b := must(enter("b", "q", wordcount()))
	if b.Epoch != 3 || b.Assigned == nil || len(b.Assigned) != 0 || g.State() != "Reconciling" {
		t.Fatalf("the second member before the first has given up: %+v, %s", b, g.State())
	}
	a = must(report("a", 2, nil))
	kept := maps.Clone(a.Assigned)
	if a.Epoch != 2 || len(kept) != 2 {
		t.Fatalf("told to give up: %+v", a)
	}
	if a = must(report("a", 2, nil)); a.Epoch != 2 || a.Assigned != nil {
		t.Errorf("told again: %+v", a)
	}
	if a = must(report("a", 2, all)); a.Epoch != 2 || !sameTasks(a.Assigned, kept) {
		t.Errorf("not told again, though the answer may have been lost: %+v", a)
	}
	if b = must(report("b", 3, nil)); b.Assigned != nil {
		t.Errorf("gets what the first still has: %+v", b)
	}
	if a = must(report("a", 2, kept)); a.Epoch != 3 || a.Assigned != nil {
		t.Errorf("given up: %+v", a)
	}
	// The answer was lost: the old epoch is good, with what is still the member's.
	if a = must(report("a", 2, kept)); a.Epoch != 3 {
		t.Errorf("after a lost answer: %+v", a)
	}
	refused(report("a", 2, all), kerr.FencedMemberEpoch)
	refused(report("a", 2, nil), kerr.FencedMemberEpoch)
	refused(report("a", 4, kept), kerr.FencedMemberEpoch)
	refused(report("c", 2, kept), kerr.UnknownMemberID)
	refused(report("a", 3, Tasks{{"1", 2}: {}}), kerr.InvalidRequest)
	if b = must(report("b", 3, Tasks{})); len(b.Assigned) != 2 || g.State() != "Stable" {
		t.Fatalf("handed over: %+v, %s", b, g.State())
	}

	// Commits count for what the member has had since that epoch.
	source := func(task Task) Part {
		return Part{topicID(map[string]string{"0": "words", "1": "app-by-repartition"}[task.Subtopology]), task.Partition}
	}
	var mine, others Part
	for task := range kept {
		mine = source(task)
	}
	for task := range b.Assigned {
		others = source(task)
	}
	for _, x := range []struct {
		c       Commit
		version int16
		refused error // of all
		mine    error
		others  error
	}{
		{Commit{MemberID: "a", Generation: 3}, 9, nil, nil, nil},
		{Commit{MemberID: "a", Generation: 2}, 9, nil, nil, kerr.StaleMemberEpoch},
		{Commit{MemberID: "a", Generation: 2, Transactional: true}, 5, nil, nil, kerr.IllegalGeneration},
		{Commit{MemberID: "a", Generation: 4}, 9, kerr.StaleMemberEpoch, nil, nil},
		{Commit{MemberID: "a", Generation: 3}, 8, kerr.UnsupportedVersion, nil, nil},
		{Commit{MemberID: "c", Generation: 3}, 9, kerr.UnknownMemberID, nil, nil},
		{Commit{Generation: -1}, 9, kerr.UnknownMemberID, nil, nil},
		{Commit{Generation: -1, Transactional: true}, 5, nil, nil, nil},
	} {
		accept, err := g.ValidateCommit(x.c, x.version)
		if err != x.refused {
			t.Errorf("%+v: %v, want %v", x.c, err, x.refused)
		}
		if err == nil && (accept(mine) != x.mine || accept(others) != x.others) {
			t.Errorf("%+v: own %v, other's %v", x.c, accept(mine), accept(others))
		}
	}
	if !g.Subscribes("words") || g.Subscribes("app-count-changelog") {
		t.Error("a group subscribes to what its tasks read")
	}

	// One that is fenced joins again as who it is; one that does not give up in time is removed.
	if a = must(enter("a", "p", wordcount())); a.Epoch != 3 || len(a.Assigned) != 2 || g.epoch != 3 {
		t.Errorf("again: %+v, group epoch %d", a, g.epoch)
	}
	must(enter("c", "r", wordcount()))
	must(report("a", 3, nil))
	must(report("b", 3, nil))
	now = now.Add(40 * time.Second)
	must(report("a", g.members["a"].epoch, nil))
	must(report("b", g.members["b"].epoch, nil))
	now = now.Add(21 * time.Second)
	g.Tick(now)
	if len(g.members) != 1 {
		t.Errorf("%d members; c was silent, and one of the others has not given up", len(g.members))
	}
}

// An empty group waits for more members, then decides once.
func TestStreamsGroupWaits(t *testing.T) {
	now := time.Unix(1000, 0)
	topics := wordTopics(2)
	limits := limits1071
	limits.InitialDelay, limits.Interval = 3*time.Second, 10*time.Second
	g := NewStreams("g", limits, now)
	a, _ := g.Heartbeat(now, enter("a", "p", wordcount()), topics)
	b, _ := g.Heartbeat(now, enter("b", "q", wordcount()), topics)
	if a.Epoch != 1 || b.Epoch != 1 || a.Assigned == nil || len(a.Assigned) != 0 || !slices.Equal(codes(a.Status), []int8{AssignmentDelayed}) {
		t.Errorf("%+v, %+v", a, b)
	}
	if d := g.Deadline(); !d.Equal(now.Add(3 * time.Second)) {
		t.Errorf("deadline %v", d)
	}
	now = now.Add(3 * time.Second)
	g.Tick(now)
	a, _ = g.Heartbeat(now, report("a", 1, nil), topics)
	b, _ = g.Heartbeat(now, report("b", 1, nil), topics)
	if a.Epoch != 3 || len(a.Assigned) != 2 || len(b.Assigned) != 2 {
		t.Errorf("%+v, %+v", a, b)
	}
	// Between two decisions there is an interval.
	c, _ := g.Heartbeat(now.Add(time.Second), enter("c", "r", wordcount()), topics)
	if c.Epoch != 3 || len(c.Assigned) != 0 || !slices.Equal(codes(c.Status), []int8{AssignmentDelayed}) || g.State() != "Assigning" {
		t.Errorf("%+v, %s", c, g.State())
	}
	if c, _ = g.Heartbeat(now.Add(10*time.Second), report("c", 3, nil), topics); c.Epoch != 4 || len(c.Status) != 0 {
		t.Errorf("%+v", c)
	}
}

// A process never has a task twice: not as a standby beside itself, nor when a thread of it takes over from another.
func TestStreamsGroupStandbys(t *testing.T) {
	now := time.Unix(1000, 0)
	topics := wordTopics(3)
	limits := limits1071
	limits.Standbys = 1
	g := NewStreams("g", limits, now)
	for i, m := range []string{"a1", "a2", "b1", "b2"} {
		if _, err := g.Heartbeat(now, enter(m, []string{"a", "a", "b", "b"}[i], wordcount()), topics); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, g, now, topics)
	standbys := 0
	for _, m := range g.members {
		for _, h := range m.assigned {
			if h.Standby {
				standbys++
			}
		}
	}
	if standbys != 3 {
		t.Errorf("%d standbys of 3 stateful tasks", standbys)
	}
	limits.Standbys = 0
	g.SetLimits(limits)
	settle(t, g, now, topics)
	for id, m := range g.members {
		if len(m.assigned) > 2 || len(m.assigned) < 1 {
			t.Errorf("%s has %d of 6 tasks", id, len(m.assigned))
		}
		for task, h := range m.assigned {
			if h.Standby {
				t.Errorf("%s still has %v in standby", id, task)
			}
		}
	}
}

// settle has all members do what they are told until nothing changes.
func settle(t *testing.T, g *Streams, now time.Time, topics Topics) {
	t.Helper()
	for range 20 {
		for _, id := range g.memberIDs() {
			m := g.members[id]
			if _, err := g.Heartbeat(now, report(id, m.epoch, maps.Clone(m.assigned)), topics); err != nil {
				t.Fatal(err)
			}
		}
	}
	if g.State() != "Stable" {
		t.Fatalf("%s", g.State())
	}
}

// The topology of the first member counts; topics that come and go change who has what.
func TestStreamsGroupFollowsTopics(t *testing.T) {
	now := time.Unix(1000, 0)
	topics := &fakeTopics{version: 1, partitions: map[string]int32{"words": 2}}
	g := NewStreams("g", limits1071, now)
	first := wordcount()
	first.Epoch = 2
	a, err := g.Heartbeat(now, enter("a", "p", first), topics)
	if err != nil || a.Epoch != 2 || len(a.Assigned) != 0 || len(a.Missing) != 2 || g.State() != "NotReady" {
		t.Fatalf("%+v, %v, %s", a, err, g.State())
	}
	topics.version++
	maps.Copy(topics.partitions, wordTopics(2).partitions)
	if a, err = g.Heartbeat(now, report("a", 2, nil), topics); err != nil || a.Epoch != 3 || len(a.Assigned) != 4 || len(a.Status) != 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	if b, err := g.Heartbeat(now, enter("b", "q", wordcount()), topics); err != nil || !slices.Equal(codes(b.Status), []int8{StaleTopology}) {
		t.Errorf("an older topology: %+v, %v", b, err)
	}
	other := wordcount()
	other.Epoch, other.Subtopologies[0].Sources = 3, []string{"texts"}
	if _, err := g.Heartbeat(now, enter("c", "r", other), topics); err != kerr.InvalidRequest {
		t.Errorf("another topology: %v", err)
	}
	if g.members["c"] != nil {
		t.Error("a member that was refused is in")
	}
	topics.version++
	delete(topics.partitions, "words")
	if a, err = g.Heartbeat(now, report("a", 3, nil), topics); err != nil || len(a.Assigned) != 0 || a.Assigned == nil || !slices.Equal(codes(a.Status), []int8{MissingSources}) {
		t.Errorf("without its source: %+v, %v", a, err)
	}
}

// A member that asks all to stop is repeated to all, until nobody is left.
func TestStreamsGroupShutsDown(t *testing.T) {
	now, topics := time.Unix(1000, 0), wordTopics(1)
	g := NewStreams("g", limits1071, now)
	g.Heartbeat(now, enter("a", "p", wordcount()), topics)
	g.Heartbeat(now, enter("b", "q", wordcount()), topics)
	g.Heartbeat(now, StreamsRequest{MemberID: "a", Epoch: leaveEpoch, Shutdown: true}, topics)
	b, err := g.Heartbeat(now, report("b", g.members["b"].epoch, nil), topics)
	if err != nil || !slices.Equal(codes(b.Status), []int8{ShutDownApplication}) || !strings.Contains(b.Status[0].Detail, "member a ") {
		t.Errorf("%+v, %v", b, err)
	}
	g.Heartbeat(now, StreamsRequest{MemberID: "b", Epoch: leaveEpoch}, topics)
	if c, _ := g.Heartbeat(now, enter("c", "p", wordcount()), topics); len(c.Status) != 0 || len(c.Assigned) != 2 {
		t.Errorf("%+v", c)
	}
}

// Members with an endpoint are told of each other's partitions.
func TestStreamsGroupEndpoints(t *testing.T) {
	now, topics := time.Unix(1000, 0), wordTopics(1)
	g := NewStreams("g", limits1071, now)
	r := enter("a", "p", wordcount())
	r.Endpoint = &Endpoint{"host", 1}
	a, _ := g.Heartbeat(now, r, topics)
	want := []TopicParts{{"app-by-repartition", []int32{0}}, {"words", []int32{0}}}
	if a.EndpointEpoch != 1 || len(a.Endpoints) != 1 || !slices.EqualFunc(a.Endpoints[0].Active, want, func(a, b TopicParts) bool {
		return a.Topic == b.Topic && slices.Equal(a.Partitions, b.Partitions)
	}) {
		t.Errorf("%+v", a)
	}
	again := report("a", a.Epoch, nil)
	again.EndpointEpoch = 1
	if a, _ = g.Heartbeat(now, again, topics); a.EndpointsGiven {
		t.Errorf("told again: %+v", a)
	}
}

func TestStreamsRequests(t *testing.T) {
	fixed := wordcount()
	fixed.Subtopologies[1].Changelogs[0].Partitions = 3
	for what, r := range map[string]StreamsRequest{
		"no timeout":                {Topology: wordcount(), RebalanceTimeout: -1, Owned: Tasks{}},
		"no topology":               {Owned: Tasks{}},
		"a topology later":          {Epoch: 1, Topology: wordcount()},
		"joins with tasks":          {Topology: wordcount(), Owned: Tasks{{"0", 0}: {}}},
		"joins without owned":       {Topology: wordcount()},
		"goes away as a static one": {Epoch: leaveStaticEpoch},
		"an empty rack":             {Epoch: 1, Rack: str("")},
		"a changelog's partitions":  {Topology: fixed, Owned: Tasks{}},
		"a subtopology twice":       {Topology: &Topology{Subtopologies: []Subtopology{{ID: "0"}, {ID: "0"}}}, Owned: Tasks{}},
	} {
		if r.Check() == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	r := enter("a", "p", wordcount())
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}

// client1071 is a member that follows the protocol, over a network that loses answers.
type client1071 struct {
	id, process string
	epoch       int32
	owned, told Tasks
	lost        bool // an answer
}

// Whatever comes and goes, no task is active in two members or twice in a process; and when it is quiet again every task is
// somebody's. The broker stops and starts in between. A member that has missed an answer may begin with what it was told before
// and is no longer to have; then its commits are refused.
func TestStreamsGroupsAtRandom(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1071))
		now := time.Unix(1000, 0)
		topics := wordTopics(4)
		limits := limits1071
		limits.Standbys = r.IntN(2)
		g := NewStreams("g", limits, now)
		var stored []byte
		clients := map[string]*client1071{}
		var order []string
		next := 0
		exchange := func(c *client1071, lossy bool) {
			req := report(c.id, c.epoch, maps.Clone(c.owned))
			if c.epoch == joinEpoch {
				c.owned, c.told = Tasks{}, Tasks{}
				req = enter(c.id, c.process, wordcount())
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
				c.epoch, c.owned, c.told = joinEpoch, Tasks{}, Tasks{}
			case err != nil:
				t.Fatalf("seed %d: %v", seed, err)
			default:
				if c.epoch = res.Epoch; res.Assigned != nil {
					c.told = maps.Clone(res.Assigned)
				}
			}
		}
		check := func(step int) {
			active, here := map[Task]string{}, map[string]string{}
			commits := func(id string, task Task) bool {
				topic := map[string]string{"0": "words", "1": "app-by-repartition"}[task.Subtopology]
				accept, err := g.ValidateCommit(Commit{MemberID: id, Generation: clients[id].epoch}, 9)
				return err == nil && accept(Part{topicID(topic), task.Partition}) == nil
			}
			for _, id := range order {
				c := clients[id]
				for task, h := range c.owned {
					if other, taken := active[task]; taken && !h.Standby && (!c.lost && !clients[other].lost || commits(id, task) && commits(other, task)) {
						t.Fatalf("seed %d, step %d: %s and %s are both active in %v", seed, step, other, id, task)
					}
					at := fmt.Sprint(c.process, task)
					if other, taken := here[at]; taken && !c.lost && !clients[other].lost {
						t.Fatalf("seed %d, step %d: %s and %s of process %s both have %v", seed, step, other, id, c.process, task)
					}
					if here[at] = id; !h.Standby {
						active[task] = id
					}
				}
			}
		}
		for step := range 400 {
			switch k := r.IntN(20); {
			case k == 0 && len(order) < 6:
				next++
				id := fmt.Sprintf("m%d", next)
				clients[id] = &client1071{id: id, process: fmt.Sprintf("p%d", r.IntN(3)), owned: Tasks{}, told: Tasks{}}
				order = append(order, id)
			case k == 1 && len(order) > 1:
				i := r.IntN(len(order))
				g.Heartbeat(now, StreamsRequest{MemberID: order[i], Epoch: leaveEpoch}, topics)
				delete(clients, order[i])
				order = slices.Delete(order, i, i+1)
			case k == 2:
				// The changelog is there or not: the topology runs or does not.
				topics.version++
				if _, ok := topics.partitions["app-count-changelog"]; ok {
					delete(topics.partitions, "app-count-changelog")
				} else {
					topics.partitions["app-count-changelog"] = 4
				}
			case k == 3 && stored != nil:
				if rec, ok := g.Unsaved(); ok {
					stored = rec
				}
				var err error
				if g, err = RestoreStreams("g", limits, now, stored); err != nil {
					t.Fatal(err)
				}
			case len(order) > 0:
				c := clients[order[r.IntN(len(order))]]
				exchange(c, true)
				// What it is told to give up it gives up at once; what it is told to have, later.
				maps.DeleteFunc(c.owned, func(task Task, h Held) bool { return !c.told.has(task, h.Standby) })
				if r.IntN(2) == 0 {
					c.owned = maps.Clone(c.told)
				}
			}
			now = now.Add(50 * time.Millisecond)
			check(step)
		}
		topics.version++
		topics.partitions["app-count-changelog"] = 4
		for range 40 {
			for _, id := range order {
				exchange(clients[id], false)
				clients[id].owned = maps.Clone(clients[id].told)
			}
			check(-1)
		}
		if len(order) == 0 {
			continue
		}
		if g.State() != "Stable" {
			t.Fatalf("seed %d: %s when it is quiet", seed, g.State())
		}
		got, processes := map[string]Tasks{}, map[string]string{}
		for _, id := range order {
			got[id], processes[id] = clients[id].owned, clients[id].process
		}
		if err := checkDeal(got, processes, []int32{4, 4}, []bool{false, true}, limits.Standbys); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func FuzzRestoreStreams(f *testing.F) {
	now := time.Unix(1000, 0)
	g := NewStreams("g", limits1071, now)
	g.Heartbeat(now, enter("a", "p", wordcount()), wordTopics(2))
	rec, _ := g.Unsaved()
	f.Add(rec)
	f.Add([]byte(`{"v":1,"topology":{"epoch":1},"members":[{"id":"a","unproven":-5,"revoking":[{"s":"","p":1}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := RestoreStreams("g", limits1071, now, b)
		if err == nil {
			g.Heartbeat(now, enter("b", "q", wordcount()), wordTopics(2))
			g.Tick(now.Add(time.Hour))
			g.Describe()
			g.Unsaved()
		}
	})
}
