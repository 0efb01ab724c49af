package commit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moldau/moldau/internal/cluster"
)

// world is a group, its offsets and its output topic in a few lines, with the rules of Kafka: a transaction's records
// and offsets become visible together or not at all, offsets are refused from who does not own the partition, and an
// old producer is fenced.
type world struct {
	bug     string
	outputs map[Task][]string
	offsets map[Task]cluster.Offset
	ours    map[Task]bool
	epoch   int  // of the transactional id
	taken   bool // by another producer that initialised it
	open    bool
	records []output
	staged  map[Task]cluster.Offset
	made    map[string]bool // metadata of every commit that ever took place
}

type output struct {
	task Task
	text string
}

// sim is a worker in the world. Its tasks count: the state is the number of records and the number of punctuations, and
// every third record makes no output.
type sim struct {
	t     *testing.T
	r     *rand.Rand
	w     *world
	m     *Machine
	cfg   Config
	now   int64
	names []Task
	tasks map[Task]*counter
	held  []output // effects of the open epoch, not yet handed over
	acks  []uint32 // produce calls not yet acknowledged
	ask   []Action // the answered action under way
	epoch int      // of the transactional id, as we know it
	gone  map[Task]bool
	sent  map[cluster.TP]cluster.Offset // by the epoch under way
	log   []string
	stats map[string]int
}

type counter struct {
	at, ticks int64
	begun     map[uint32][2]int64 // state when an epoch first touched it
	worked    bool
}

var errNetwork = errors.New("connection reset")

func tpOf(t Task) cluster.TP { return cluster.TP{Topic: t} }

func (s *sim) join(t Task) {
	seq, err := ReadSequence(s.w.offsets[t].Metadata)
	if err != nil {
		s.t.Fatal(err)
	}
	// The state is restored from the changelog: here, from what has become visible.
	c := &counter{at: s.w.offsets[t].At, begun: map[uint32][2]int64{}}
	for _, o := range s.w.outputs[t] {
		if o[0] == 't' {
			c.ticks++
		}
	}
	s.tasks[t] = c
	s.m.Join(t, seq.Number)
}

// step lets a task take a record, or a punctuator.
func (s *sim) step(t Task) {
	c := s.tasks[t]
	if _, ok := c.begun[s.m.Epoch()]; !ok {
		c.begun[s.m.Epoch()] = [2]int64{c.at, c.ticks}
	}
	c.worked = true
	made := true
	if s.r.IntN(6) == 0 {
		s.held = append(s.held, output{t, fmt.Sprintf("t%d", c.ticks)})
		c.ticks++
	} else {
		if made = c.at%3 != 2; made {
			s.held = append(s.held, output{t, fmt.Sprintf("r%d", c.at)})
		}
		c.at++
	}
	if made {
		s.m.Collected()
	} else {
		s.m.Worked()
	}
}

func (s *sim) play() {
	for {
		actions := s.m.Take()
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			s.log = append(s.log, "  "+show(a))
			s.act(a)
		}
	}
}

func (s *sim) act(a Action) {
	w := s.w
	switch a.Kind {
	case Seal:
		var parts []Part
		for _, t := range s.names {
			if c := s.tasks[t]; c != nil && c.worked {
				parts = append(parts, Part{t, map[cluster.TP]cluster.Offset{tpOf(t): {At: c.at}}})
				c.worked = false
			}
		}
		s.m.Sealed(parts, false)
	case Begin:
		if w.open && s.epoch == w.epoch {
			s.fail("a second transaction begins")
		}
		if s.epoch == w.epoch {
			w.open, w.records, w.staged = true, nil, map[Task]cluster.Offset{}
		}
	case Produce:
		if s.cfg.Transactional && s.epoch == w.epoch && w.open {
			w.records = append(w.records, s.held...)
		} else if !s.cfg.Transactional {
			for _, o := range s.held {
				w.outputs[o.task] = append(w.outputs[o.task], o.text)
			}
		}
		s.held = nil
		s.acks = append(s.acks, a.Epoch)
	case CommitOffsets, CommitPlain, End, Abort, Init, Compare:
		if len(s.ask) > 0 {
			s.fail("two answers awaited")
		}
		s.ask = []Action{a}
		if a.Offsets != nil {
			s.sent = a.Offsets
		}
	case Done:
		for _, t := range a.Tasks {
			c := s.tasks[t]
			if c == nil {
				s.fail("done for a task that is gone")
			}
			delete(c.begun, a.Epoch)
			if !w.made[s.sent[tpOf(t)].Metadata] {
				s.fail("done, but it was never committed: " + t)
			}
			s.stats["done"]++
		}
	case Undo:
		s.stats["undo"]++
		s.held, s.acks = nil, nil
		for t, c := range s.tasks {
			c.worked = false
			two := len(c.begun) > 1
			for _, e := range []uint32{a.Epoch + 1, a.Epoch} {
				if s.w.bug == "undo only the newest epoch" && e == a.Epoch && two {
					delete(c.begun, e)
				}
				if was, ok := c.begun[e]; ok {
					c.at, c.ticks = was[0], was[1]
					delete(c.begun, e)
				}
			}
			if len(c.begun) > 0 {
				s.fail("an epoch is left after undo")
			}
			if at := w.offsets[t].At; w.ours[t] && c.at > at {
				s.fail(fmt.Sprintf("%s is at %d after undo, committed is %d", t, c.at, at))
			}
		}
	case Release, Rebuild:
		for _, t := range a.Tasks {
			if c := s.tasks[t]; c != nil && len(c.begun) > 0 && !s.gone[t] && a.Kind == Release {
				s.fail("released with an epoch open")
			}
			delete(s.tasks, t)
			delete(s.gone, t)
			if a.Kind == Rebuild {
				s.stats["rebuild"]++
			} else if !slices.Contains(s.lostOnes(), t) {
				w.ours[t] = false
			}
		}
	case Fail:
		s.stats["fail"]++
		s.restart()
	}
}

func (s *sim) lostOnes() (l []Task) {
	for _, t := range s.names {
		if !s.w.ours[t] {
			l = append(l, t)
		}
	}
	return l
}

// reply carries out the action under way, or not, and answers, or not.
func (s *sim) reply() {
	a := s.ask[0]
	s.ask = nil
	w := s.w
	err := s.apply(a)
	if err == nil && s.r.IntN(8) == 0 { // done, but the answer is lost
		err = errNetwork
		if a.Kind == End {
			err = cluster.ErrUnknown
			s.stats["unknown, committed"]++
		}
	}
	if a.Kind == Compare {
		got := map[Task]Sequence{}
		for _, t := range a.Tasks {
			if o, ok := w.offsets[t]; ok {
				got[t], _ = ReadSequence(o.Metadata)
				if w.bug == "compare without the writer" {
					got[t] = Sequence{got[t].Number, s.cfg.Writer}
				}
			}
		}
		s.log = append(s.log, fmt.Sprintf("compared %v %v", got, err))
		s.m.Compared(got, err)
		return
	}
	s.log = append(s.log, fmt.Sprintf("answer %s %v", a.Kind, err))
	if w.bug == "unknown taken for aborted" && errors.Is(err, cluster.ErrUnknown) {
		err = cluster.ErrAborted
	}
	s.m.Answer(err)
}

func (s *sim) apply(a Action) error {
	w := s.w
	if s.r.IntN(10) == 0 { // never arrived
		if a.Kind == End {
			s.stats["unknown, not committed"]++
			return cluster.ErrUnknown
		}
		return errNetwork
	}
	if a.Kind == Init {
		if s.epoch != w.epoch && w.taken {
			return cluster.ErrFenced
		}
		w.epoch++
		s.epoch = w.epoch
		w.open, w.records, w.staged = false, nil, nil
		return nil
	}
	if a.Kind == Compare {
		return nil
	}
	if s.cfg.Transactional && a.Kind != CommitPlain && s.epoch != w.epoch {
		s.stats["fenced"]++
		return cluster.ErrFenced
	}
	switch a.Kind {
	case CommitOffsets, CommitPlain:
		for tp := range a.Offsets {
			if !w.ours[tp.Topic] && w.bug != "no generation check" {
				s.stats["generation"]++
				return cluster.ErrGeneration
			}
		}
		for tp, o := range a.Offsets {
			if a.Kind == CommitPlain {
				w.offsets[tp.Topic], w.made[o.Metadata] = o, true
			} else if w.open {
				w.staged[tp.Topic] = o
			}
		}
		if a.Kind == CommitOffsets && !w.open {
			return cluster.ErrAborted
		}
	case End:
		if !w.open {
			return cluster.ErrAborted
		}
		w.commit()
	case Abort:
		w.open, w.records, w.staged = false, nil, nil
	}
	return nil
}

func (w *world) commit() {
	for _, o := range w.records {
		w.outputs[o.task] = append(w.outputs[o.task], o.text)
	}
	for t, o := range w.staged {
		w.offsets[t], w.made[o.Metadata] = o, true
	}
	w.open, w.records, w.staged = false, nil, nil
}

// takeOver is another process that owns a task, works a little and commits, with the very next sequence.
func (s *sim) takeOver(t Task) {
	w := s.w
	seq, _ := ReadSequence(w.offsets[t].Metadata)
	at, ticks := w.offsets[t].At, 0
	for _, o := range w.outputs[t] {
		if o[0] == 't' {
			ticks++
		}
	}
	for range 1 + s.r.IntN(3) {
		if at%3 != 2 {
			w.outputs[t] = append(w.outputs[t], fmt.Sprintf("r%d", at))
		}
		at++
	}
	w.offsets[t] = cluster.Offset{At: at, Metadata: stamp("", Sequence{seq.Number + 1, 99})}
	s.stats["taken over"]++
}

// restart is a crash: what is in memory is gone, the new process initialises the id and takes the tasks it owns.
func (s *sim) restart() {
	s.w.epoch++
	s.epoch, s.w.taken = s.w.epoch, false
	s.w.open, s.w.records, s.w.staged = false, nil, nil
	s.cfg.Writer++
	s.m, s.now = New(s.cfg), 0
	s.tasks, s.gone, s.held, s.acks, s.ask = map[Task]*counter{}, map[Task]bool{}, nil, nil, nil
	for _, t := range s.names {
		if s.w.ours[t] {
			s.join(t)
		}
	}
}

func (s *sim) fail(why string) { panic(failure(why)) }

type failure string

// check compares what is visible with what must be: each record's output once, in order, up to the committed offset.
func (s *sim) check() {
	for _, t := range s.names {
		var want []string
		for i := range s.w.offsets[t].At {
			if i%3 != 2 {
				want = append(want, fmt.Sprintf("r%d", i))
			}
		}
		var got []string
		ticks := 0
		for _, o := range s.w.outputs[t] {
			if o[0] == 'r' {
				got = append(got, o)
			} else if s.cfg.Transactional && o != fmt.Sprintf("t%d", ticks) {
				s.fail(fmt.Sprintf("%s: punctuation %s instead of t%d", t, o, ticks))
			} else {
				ticks++
			}
		}
		if s.cfg.Transactional {
			if !slices.Equal(got, want) {
				s.fail(fmt.Sprintf("%s at %d: %v", t, s.w.offsets[t].At, got))
			}
			continue
		}
		seen := map[string]bool{}
		for _, o := range got {
			seen[o] = true
		}
		for _, o := range want {
			if !seen[o] {
				s.fail(fmt.Sprintf("%s at %d: %s is lost", t, s.w.offsets[t].At, o))
			}
		}
	}
}

// run plays one random course of events and returns what went wrong.
func run(t *testing.T, seed uint64, transactional bool, bug string, stats map[string]int) (wrong string, log []string) {
	s := &sim{t: t, r: rand.New(rand.NewPCG(seed, 1)), stats: stats, names: []Task{"0_0", "0_1", "0_2"},
		cfg: Config{Transactional: transactional, Interval: 20, GiveUp: 200, Writer: 1000},
		w:   &world{bug: bug, outputs: map[Task][]string{}, offsets: map[Task]cluster.Offset{}, made: map[string]bool{}, ours: map[Task]bool{"0_0": true, "0_1": true, "0_2": true}}}
	defer func() {
		if f, ok := recover().(failure); ok {
			wrong, log = string(f), s.log
		}
	}()
	s.restart()
	for range 400 {
		s.event()
		s.play()
		if s.cfg.Transactional {
			s.check()
		}
	}
	// Heal: everything answers, and the epoch in hand is committed.
	s.m.Stop()
	s.play()
	for i := 0; i < 5000 && s.m.State() != "stopped"; i++ {
		if s.m.State() == "running" {
			s.m.Stop() // again, after a failure and a restart
		}
		s.now += 50
		s.m.Tick(s.now)
		s.play()
		s.quiet()
	}
	if s.m.State() != "stopped" {
		s.fail("does not stop: " + s.m.State())
	}
	s.check()
	return "", nil
}

// quiet lets what is awaited come without any fault, except for partitions that are not ours any more: those are lost.
func (s *sim) quiet() {
	for _, t := range s.lostOnes() {
		if s.tasks[t] != nil {
			s.gone[t] = true
			s.m.Lost(t)
			s.play()
		}
	}
	for len(s.acks) > 0 {
		e := s.acks[0]
		s.acks = s.acks[1:]
		s.m.Acked(e, nil)
		s.play()
	}
	if len(s.ask) > 0 {
		s.reply()
		s.play()
	}
}

func (s *sim) event() {
	t := s.names[s.r.IntN(len(s.names))]
	c := s.tasks[t]
	note := func(f string, a ...any) { s.log = append(s.log, fmt.Sprintf(f, a...)) }
	switch n := s.r.IntN(100); {
	case n < 40:
		if c != nil && !s.gone[t] && s.m.MayStep() {
			note("step %s", t)
			s.step(t)
		}
	case n < 55:
		s.now += int64(s.r.IntN(30))
		note("tick %d", s.now)
		s.m.Tick(s.now)
	case n < 70:
		if len(s.acks) == 0 {
			return
		}
		e := s.acks[0]
		s.acks = s.acks[1:]
		var err error
		switch {
		case s.cfg.Transactional && s.epoch != s.w.epoch:
			err = cluster.ErrFenced
		case s.r.IntN(15) == 0:
			err = []error{cluster.ErrAborted, errNetwork}[s.r.IntN(2)]
		}
		note("acked %d %v", e, err)
		s.m.Acked(e, err)
	case n < 90:
		if len(s.ask) > 0 {
			s.reply()
		}
	case n < 92:
		if c != nil && !s.gone[t] && s.w.ours[t] {
			note("revoke %s", t)
			s.gone[t] = true
			s.m.Revoke(t)
		}
	case n < 94: // the group drops us; we may learn of it much later
		if c != nil && s.w.ours[t] && !s.gone[t] {
			note("dropped %s", t)
			s.w.ours[t] = false
			if s.r.IntN(2) == 0 { // the successor clears the way: our producer is fenced
				s.w.epoch++
				s.w.open, s.w.records, s.w.staged, s.w.taken = false, nil, nil, true
			}
			if !s.w.open && s.cfg.Transactional {
				s.takeOver(t)
			}
		}
	case n < 96:
		if c != nil && !s.w.ours[t] && !s.gone[t] {
			note("lost %s", t)
			s.gone[t] = true
			s.m.Lost(t)
		}
	case n < 97:
		if c == nil { // it comes back
			note("assigned %s", t)
			if !s.w.ours[t] && s.r.IntN(2) == 0 && s.cfg.Transactional {
				s.takeOver(t)
			}
			s.w.ours[t] = true
			s.join(t)
		}
	case n < 98:
		s.m.Hurry()
	case n < 99: // the broker times the transaction out
		if s.w.open && s.cfg.Transactional {
			note("timed out")
			s.w.epoch++
			s.w.open, s.w.records, s.w.staged = false, nil, nil
		}
	default:
		note("crash")
		s.stats["crash"]++
		s.restart()
	}
}

const seeds = 1500

func TestRandomFaults(t *testing.T) {
	for _, transactional := range []bool{true, false} {
		stats := map[string]int{}
		for seed := range uint64(seeds) {
			if wrong, log := run(t, seed, transactional, "", stats); wrong != "" {
				for _, l := range log {
					t.Log(l)
				}
				t.Fatalf("transactional %v, seed %d: %s", transactional, seed, wrong)
			}
		}
		t.Logf("transactional %v: %v", transactional, stats)
		want := []string{"done", "undo", "crash", "generation"}
		if transactional {
			want = append(want, "unknown, committed", "unknown, not committed", "fenced", "taken over", "rebuild")
		}
		for _, s := range want {
			if stats[s] < 40 {
				t.Errorf("transactional %v: %q happened %d times only: the test proves little", transactional, s, stats[s])
			}
		}
	}
}

// TestSeededBugs shows that the check above notices what it is there for.
func TestSeededBugs(t *testing.T) {
	for _, bug := range []string{"unknown taken for aborted", "undo only the newest epoch", "no generation check", "compare without the writer"} {
		found := -1
		for seed := range uint64(seeds) {
			if wrong, _ := run(t, seed, true, bug, map[string]int{}); wrong != "" {
				found = int(seed)
				t.Logf("%s: seed %d: %s", bug, seed, wrong)
				break
			}
		}
		if found < 0 {
			t.Errorf("%s: not noticed in %d runs", bug, seeds)
		}
	}
}
