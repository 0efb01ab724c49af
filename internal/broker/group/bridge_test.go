package group

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Groups move between the protocols as members of either come and go: no partition is worked on by two members at a time,
// and when it is quiet again all have as much as they should.
func TestBridgeAtRandom(t *testing.T) {
	upgrades, downgrades := 0, 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 7))
		b := newBridged(t, map[string]int32{"t": 5, "u": 3})
		cooperative := seed%2 == 0
		var classics []*consumerClassic
		var moderns []*client848
		names := func() []string { return [][]string{{"t"}, {"t", "u"}}[r.IntN(2)] }
		beat848 := func(c *client848) {
			req := beat(c.id, c.epoch, c.owned...)
			if c.epoch == joinEpoch {
				c.owned, c.told = nil, nil
				req = join(c.id, c.names...)
			}
			switch res, err := b.beat(req); err {
			case nil:
				c.epoch = res.Epoch
				if res.AssignedGiven {
					c.told = res.Assigned
				}
			case kerr.FencedMemberEpoch, kerr.UnknownMemberID, kerr.GroupIDNotFound:
				c.epoch, c.owned, c.told = joinEpoch, nil, nil
			default:
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		work := func(c *client848) {
			c.owned = slices.DeleteFunc(slices.Clone(c.owned), func(p Part) bool { return !slices.Contains(c.told, p) })
			if r.IntN(2) == 0 {
				c.owned = slices.Clone(c.told)
			}
		}
		check := func(step int) {
			t.Helper()
			by := map[Part]string{}
			works := func(id string, ps []Part) {
				for _, p := range ps {
					if other, taken := by[p]; taken {
						t.Fatalf("seed %d, step %d: %s and %s both work on %s/%d", seed, step, other, id, p.Topic[:1], p.Partition)
					}
					by[p] = id
				}
			}
			for _, c := range classics {
				works(c.id, c.owned)
			}
			for _, c := range moderns {
				works(c.id, c.owned)
			}
		}
		next := 0
		for step := range 500 {
			was := b.modern != nil
			switch k := r.IntN(30); {
			case k == 0 && len(classics) < 4:
				classics = append(classics, &consumerClassic{b: b, cooperative: cooperative, names: names()})
			case k == 1 && len(moderns) < 3:
				next++
				moderns = append(moderns, &client848{id: fmt.Sprintf("modern-%d", next), names: names()})
			case k == 2 && len(classics) > 0:
				i := r.IntN(len(classics))
				c := classics[i]
				classics = slices.Delete(classics, i, i+1)
				c.gone, c.owned = true, nil
				b.leave(Leaving{MemberID: c.id})
			case k == 3 && len(moderns) > 0:
				i := r.IntN(len(moderns))
				c := moderns[i]
				moderns = slices.Delete(moderns, i, i+1)
				if c.epoch != joinEpoch {
					b.beat(HeartbeatRequest{MemberID: c.id, Epoch: leaveEpoch})
				}
				b.apply(Effects{})
			case k == 4:
				b.restart()
				for _, c := range classics { // their requests went down with the broker
					if c.joining || c.syncing {
						c.joining, c.syncing, c.joined = false, false, false
					}
				}
			default:
				if i := r.IntN(len(classics) + len(moderns) + 1); i < len(classics) {
					classics[i].step()
				} else if i -= len(classics); i < len(moderns) {
					beat848(moderns[i])
					work(moderns[i])
				}
			}
			switch now := b.modern != nil; {
			case now && !was && len(classics) > 0:
				upgrades++
			case was && !now && len(classics) > 0:
				downgrades++
			}
			b.now = b.now.Add(5 * time.Millisecond)
			check(step)
		}
		for range 60 {
			for _, c := range classics {
				c.step()
			}
			for _, c := range moderns {
				beat848(c)
				c.owned = slices.Clone(c.told)
			}
			check(-1)
		}
		switch {
		case b.modern != nil && len(classics)+len(moderns) > 0:
			if len(moderns) == 0 {
				t.Fatalf("seed %d: a group of classic members only is no classic one", seed)
			}
			if b.modern.State() != "Stable" {
				t.Fatalf("seed %d: %s when it is quiet", seed, b.modern.State())
			}
			balanced(t, b.modern, b.topics, fmt.Sprintf("seed %d", seed))
		case len(classics) > 0:
			if state, _ := b.classic.State(); state != Stable {
				t.Fatalf("seed %d: %s when it is quiet", seed, state)
			}
		}
		has := map[Part]bool{}
		for _, c := range classics {
			for _, p := range c.owned {
				has[p] = true
			}
		}
		for _, c := range moderns {
			for _, p := range c.owned {
				has[p] = true
			}
		}
		if len(classics)+len(moderns) > 0 {
			for p := range int32(5) {
				if !has[Part{topicID("t"), p}] {
					t.Errorf("seed %d: nobody works on t/%d", seed, p)
				}
			}
		}
	}
	if upgrades < 100 || downgrades < 100 {
		t.Errorf("only %d upgrades and %d downgrades", upgrades, downgrades)
	}
}

func TestBridgeOneOfEach(t *testing.T) {
	b := newBridged(t, map[string]int32{"t": 4})
	id, generation := b.alone("")
	res, err := b.beat(join("new", "t"))
	if err != nil || res.Epoch != generation+1 || len(res.Assigned) != 0 {
		t.Fatalf("the first of the consumer protocol: %+v, %v", res, err)
	}
	if _, err := b.modern.ValidateCommit(Commit{MemberID: id, Generation: generation}, 8); err != nil {
		t.Errorf("a commit before the rebalance: %v", err)
	}
	if err := b.heartbeat(id, generation); err != kerr.RebalanceInProgress {
		t.Errorf("heartbeat: %v", err)
	}
	if res := b.syncNow(id, generation, nil); res.Err != kerr.RebalanceInProgress {
		t.Errorf("sync of the generation before: %v", res.Err)
	}
	j := b.joinNow(JoinRequest{MemberID: id, Protocols: []Protocol{{"range", subscribe([]string{"t"})}}})
	if j.Err != nil || j.Generation != res.Epoch || j.Leader != "" || len(j.Members) != 0 || j.Protocol != "range" {
		t.Fatalf("joined: %+v", j)
	}
	if err := b.modern.ValidateFetch(&id, generation); err != kerr.IllegalGeneration {
		t.Errorf("offsets of an old generation: %v", err)
	}
	if res := b.syncNow(id, j.Generation, nil); res.Err != nil || len(res.Assignment) != 2+4+2+1+4+2*4+4 {
		t.Errorf("synced: %+v", res)
	}
	if err := b.heartbeat(id, j.Generation); err != nil {
		t.Errorf("heartbeat: %v", err)
	}
	if res, _ := b.beat(beat("new", res.Epoch)); len(res.Assigned) != 2 {
		t.Errorf("handed over: %+v", res)
	}
	if d := b.modern.Describe(); d.State != "Stable" || !d.Members[0].Classic || d.Members[1].Classic {
		t.Errorf("described: %+v", d)
	}
	if err := b.heartbeat("new", res.Epoch); err != kerr.UnknownMemberID {
		t.Errorf("a classic heartbeat of the other: %v", err)
	}
	if got := b.joinNow(JoinRequest{Protocols: []Protocol{{"sticky", subscribe([]string{"t"})}}}); got.Err != kerr.InconsistentGroupProtocol {
		t.Errorf("a protocol the other classic member does not know: %v", got.Err)
	}

	// The last of the consumer protocol leaves: a classic group, whose members assign anew.
	if _, err := b.beat(HeartbeatRequest{MemberID: "new", Epoch: leaveEpoch}); err != nil || b.modern != nil {
		t.Fatalf("left: %v", err)
	}
	if state, _ := b.classic.State(); state != PreparingRebalance {
		t.Errorf("state %v", state)
	}
	j = b.joinNow(JoinRequest{MemberID: id, Protocols: []Protocol{{"range", subscribe([]string{"t"})}}})
	if j.Err != nil || j.Leader != id || j.Generation <= res.Epoch {
		t.Errorf("classic again: %+v", j)
	}
}

// A classic member is called back when there is a target for it, not when there ought to be one: who leaves makes none.
func TestBridgeTargetOfOneThatLeft(t *testing.T) {
	b := newBridged(t, map[string]int32{"t": 4})
	id, _ := b.alone("")
	first, _ := b.beat(join("new", "t"))
	protocols := []Protocol{{"range", subscribe([]string{"t"})}}
	b.joinNow(JoinRequest{MemberID: id, Protocols: protocols})
	second := b.joinNow(JoinRequest{Protocols: protocols})
	second = b.joinNow(JoinRequest{MemberID: second.MemberID, Protocols: protocols})
	if errs := b.leave(Leaving{MemberID: id}); errs[0] != nil {
		t.Fatal(errs[0])
	}
	if err := b.heartbeat(second.MemberID, second.Generation); err != nil {
		t.Errorf("before there is a target: %v", err)
	}
	if res := b.syncNow(second.MemberID, second.Generation, nil); res.Err != nil {
		t.Errorf("sync before there is a target: %v", res.Err)
	}
	if _, err := b.beat(beat("new", first.Epoch)); err != nil {
		t.Fatal(err)
	}
	if err := b.heartbeat(second.MemberID, second.Generation); err != kerr.RebalanceInProgress {
		t.Errorf("with a target: %v", err)
	}
}

// A classic member that is called back and does not come, or does not fetch what it has, is removed.
func TestBridgeTimeouts(t *testing.T) {
	for _, what := range []string{"join", "sync", "session"} {
		b := newBridged(t, map[string]int32{"t": 4})
		id, generation := b.alone("")
		res, _ := b.beat(join("new", "t"))
		if what == "sync" {
			generation = b.joinNow(JoinRequest{MemberID: id, Protocols: []Protocol{{"range", subscribe([]string{"t"})}}}).Generation
		}
		limit := time.Minute
		if what == "session" {
			limit = 10 * time.Second
		}
		for end := b.now.Add(limit); b.now.Before(end); b.now = b.now.Add(time.Second) {
			b.modern.Tick(b.now)
			if b.modern.members[id] == nil {
				t.Fatalf("%s: removed %v too early", what, end.Sub(b.now))
			}
			if what != "session" {
				b.heartbeat(id, generation)
			}
			b.beat(beat("new", res.Epoch))
		}
		if d := b.modern.Deadline(); d.After(b.now) {
			t.Errorf("%s: not due before %v", what, d.Sub(b.now))
		}
		b.modern.Tick(b.now)
		if b.modern.members[id] != nil {
			t.Errorf("%s: still there", what)
		}
	}
}

// A static member changes its protocol, there and back, without going away first.
func TestBridgeStatic(t *testing.T) {
	b := newBridged(t, map[string]int32{"t": 4})
	id, generation := b.alone("i")
	q := join("new", "t")
	q.InstanceID = str("i")
	res, err := b.beat(q)
	if err != nil || res.Epoch != generation || len(res.Assigned) != 4 {
		t.Fatalf("upgraded: %+v, %v, after generation %d", res, err, generation)
	}
	b.restart()
	other, err := b.beat(join("other", "t"))
	if err != nil {
		t.Fatal(err)
	}
	again := b.joinNow(JoinRequest{InstanceID: "i", Protocols: []Protocol{{"range", subscribe([]string{"t"})}}})
	if again.Err != nil || again.MemberID == id {
		t.Fatalf("back: %+v", again)
	}
	if j := b.joinNow(JoinRequest{MemberID: "new", InstanceID: "i", Protocols: []Protocol{{"range", subscribe([]string{"t"})}}}); j.Err != kerr.FencedInstanceID {
		t.Errorf("the one before: %v", j.Err)
	}
	if _, err := b.beat(HeartbeatRequest{MemberID: "other", Epoch: leaveEpoch}); err != nil || b.modern != nil {
		t.Fatalf("%v, %+v", err, other)
	}
	// An administrator removes it by its instance alone.
	b.beat(join("third", "t"))
	if errs := b.leave(Leaving{InstanceID: "i"}, Leaving{InstanceID: "none"}, Leaving{MemberID: "none"}); errs[0] != nil || errs[1] != kerr.UnknownMemberID || errs[2] != kerr.UnknownMemberID {
		t.Errorf("removed: %v", errs)
	}
	// The only member, static, goes back: nothing to assign anew, no rebalance.
	b = newBridged(t, map[string]int32{"t": 4})
	b.beat(q)
	j := b.joinNow(JoinRequest{InstanceID: "i", Protocols: []Protocol{{"range", subscribe([]string{"t"})}}})
	if j.Err != nil || b.modern != nil {
		t.Fatalf("downgraded: %+v", j)
	}
	if res := b.syncNow(j.MemberID, j.Generation, nil); res.Err != nil || len(res.Assignment) != 2+4+2+1+4+4*4+4 {
		t.Errorf("it has %+v", res)
	}
}

func TestUpgradeRefused(t *testing.T) {
	for what, m := range map[string]*member{
		"no subscription":       {protocols: []Protocol{{"range", []byte("meta")}}},
		"a malformed one":       {protocols: []Protocol{{"range", binary.BigEndian.AppendUint32([]byte{0, 0}, 1<<31-1)}}},
		"a malformed one's own": {protocols: []Protocol{{"range", subscribe(nil)}}, assignment: []byte{0, 0, 0}},
		"user data":             {protocols: []Protocol{{"range", subscribe(nil)}}, assignment: append(appendAssignment(nil, 0, nil)[:6], 0, 0, 0, 1, 9)},
	} {
		b := newBridged(t, nil)
		b.classic.protocolType, b.classic.protocol, b.classic.state = consumerType, "range", Stable
		b.classic.members = []*member{m}
		if _, err := b.beat(join("new", "t")); err != kerr.GroupIDNotFound || b.modern != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	b := newBridged(t, nil)
	b.alone("")
	b.classic.protocolType = "connect"
	if _, err := b.beat(join("new", "t")); err != kerr.GroupIDNotFound {
		t.Errorf("no consumers: %v", err)
	}
}
