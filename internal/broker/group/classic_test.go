package group

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScenarios runs the scenarios of testdata. Commands are steps of one group at a virtual time:
//
//	new [delay=D] [max=N]              a new group, at time 0
//	join ID [as=NAME] [instance=I] [session=D] [rebalance=D] [protocols=a,b] [meta=M] [v=N] [local]
//	sync ID gen=N [assign=ID:DATA,...] [instance=I]
//	heartbeat ID gen=N [instance=I]
//	leave ID... | leave instance=I
//	commit ID gen=N [txn]
//	wait D                             time passes; what is due happens on the way
//	restart [stored]                   the group is read back from its record
//	show
//
// A member called new has no id yet; as=NAME is the id it gets.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &scenario{}
		datadriven.RunTest(t, path, s.run)
	})
}

type scenario struct {
	g      *Classic
	limits Limits
	now    time.Time
	out    strings.Builder
	stored []byte
	seq    int
}

func (s *scenario) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

// apply prints what a step asks for.
func (s *scenario) apply(e Effects) {
	if e.Persist {
		s.stored = s.g.Marshal()
		s.printf("store")
	} else if r, ok := s.g.Unsaved(); ok {
		s.stored = r
	}
	for _, a := range e.Answers {
		a(nil)
	}
}

func (s *scenario) run(t *testing.T, d *datadriven.TestData) string {
	s.out.Reset()
	lines := strings.Split(strings.TrimSpace(d.Input), "\n")
	if d.Input == "" {
		lines = nil
	}
	s.step(t, strings.TrimSpace(d.Cmd+" "+argsText(d)))
	for _, l := range lines {
		s.step(t, l)
	}
	if s.out.Len() == 0 {
		return "ok\n"
	}
	return s.out.String()
}

func argsText(d *datadriven.TestData) string {
	var parts []string
	for _, a := range d.CmdArgs {
		p := a.Key
		if len(a.Vals) == 1 {
			p += "=" + a.Vals[0]
		} else if len(a.Vals) > 1 {
			p += "=" + strings.Join(a.Vals, ",")
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, " ")
}

// words splits a command into its names and its settings.
func words(line string) (names []string, set map[string]string) {
	set = map[string]string{}
	for _, w := range strings.Fields(line) {
		if k, v, ok := strings.Cut(w, "="); ok {
			set[k] = v
		} else {
			names = append(names, w)
		}
	}
	return names, set
}

func (s *scenario) step(t *testing.T, line string) {
	names, set := words(line)
	duration := func(key, def string) time.Duration {
		v, ok := set[key]
		if !ok {
			v = def
		}
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return d
	}
	number := func(key string, def int) int {
		v, ok := set[key]
		if !ok {
			return def
		}
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	id := func() string {
		if len(names) < 2 || names[1] == "new" {
			return ""
		}
		return names[1]
	}
	switch names[0] {
	case "new":
		s.now = time.Unix(1000, 0)
		s.limits = Limits{MinSession: time.Second, MaxSession: time.Hour, InitialDelay: duration("delay", "0s"), MaxSize: number("max", 0)}
		s.g = NewClassic("g", s.limits, s.now)
	case "join":
		s.seq++
		name := set["as"]
		if name == "" {
			name = fmt.Sprintf("m%d", s.seq)
		}
		r := JoinRequest{
			MemberID: id(), InstanceID: set["instance"], NewMemberID: name, Local: slices.Contains(names, "local"),
			SessionTimeout: duration("session", "10s"), RebalanceTimeout: duration("rebalance", "60s"), ProtocolType: "consumer",
			RequireKnownID: number("v", 9) >= 4, CanSkipAssignment: number("v", 9) >= 9,
			Reply: func(r JoinResult) { s.printf("  %s", joinText(names[1], r)) },
		}
		protocols := set["protocols"]
		if protocols == "" {
			protocols = "range"
		}
		for _, p := range strings.Split(protocols, ",") {
			r.Protocols = append(r.Protocols, Protocol{p, []byte(set["meta"])})
		}
		s.apply(s.g.Join(s.now, r))
	case "sync":
		r := SyncRequest{MemberID: id(), InstanceID: set["instance"], Generation: int32(number("gen", 0)), Assignments: map[string][]byte{},
			Reply: func(r SyncResult) { s.printf("  %s synced: %s", names[1], syncText(r)) }}
		for _, a := range strings.Split(set["assign"], ",") {
			if k, v, ok := strings.Cut(a, ":"); ok {
				r.Assignments[k] = []byte(v)
			}
		}
		s.apply(s.g.Sync(s.now, r))
	case "heartbeat":
		s.printf("  %s", errText(s.g.Heartbeat(s.now, id(), set["instance"], int32(number("gen", 0)))))
		s.apply(Effects{})
	case "leave":
		var leaving []Leaving
		for _, n := range names[1:] {
			leaving = append(leaving, Leaving{MemberID: n})
		}
		if i := set["instance"]; i != "" {
			leaving = append(leaving, Leaving{InstanceID: i})
		}
		errs, e := s.g.Leave(s.now, leaving)
		for _, err := range errs {
			s.printf("  left: %s", errText(err))
		}
		s.apply(e)
	case "commit":
		s.printf("  %s", errText(s.g.ValidateCommit(s.now, Commit{MemberID: id(), InstanceID: set["instance"], Generation: int32(number("gen", -1)), Transactional: slices.Contains(names, "txn")})))
	case "wait":
		d, err := time.ParseDuration(names[1])
		if err != nil {
			t.Fatal(err)
		}
		for end := s.now.Add(d); ; {
			next := s.g.Deadline()
			if next.IsZero() || next.After(end) {
				s.now = end
				break
			}
			if next.After(s.now) {
				s.now = next
			}
			s.printf("at %v", s.now.Sub(time.Unix(1000, 0)))
			s.apply(s.g.Tick(s.now))
		}
	case "restart":
		g, err := RestoreClassic("g", s.limits, s.now, s.stored)
		if err != nil {
			t.Fatal(err)
		}
		s.g = g
		s.apply(Effects{})
	case "show":
		d := s.g.Describe()
		s.printf("%s generation %d leader %q protocol %q", d.State, s.g.Generation(), s.g.leader, s.g.protocol)
		for _, m := range s.g.members {
			s.printf("  %s instance %q assignment %q", m.id, m.instance, m.assignment)
		}
	default:
		t.Fatalf("unknown command %q", line)
	}
}

func errText(err error) string {
	if err == nil {
		return "ok"
	}
	code, _, _ := strings.Cut(err.Error(), ":")
	return code
}

func joinText(who string, r JoinResult) string {
	if r.Err != nil {
		return fmt.Sprintf("%s refused: %s id %q", who, errText(r.Err), r.MemberID)
	}
	s := fmt.Sprintf("%s joined generation %d, %s, leader %s", r.MemberID, r.Generation, r.Protocol, r.Leader)
	if r.SkipAssignment {
		s += ", skips the assignment"
	}
	for _, m := range r.Members {
		s += fmt.Sprintf(" [%s %s]", m.ID, m.Metadata)
	}
	return s
}

func syncText(r SyncResult) string {
	if r.Err != nil {
		return errText(r.Err)
	}
	return strconv.Quote(string(r.Assignment))
}

func TestRestoreRefusesUnknownFormat(t *testing.T) {
	if _, err := RestoreClassic("g", Limits{}, time.Time{}, []byte(`{"v":99}`)); err == nil || !strings.Contains(err.Error(), "format 99") {
		t.Error(err)
	}
	if _, err := RestoreClassic("g", Limits{}, time.Time{}, []byte(`{`)); err == nil {
		t.Error("garbage is read")
	}
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"v":1,"generation":3,"members":[{"id":"a","session":1000}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := RestoreClassic("g", Limits{}, time.Unix(1, 0), b)
		if err == nil {
			g.Tick(time.Unix(1e6, 0))
			g.Marshal()
		}
	})
}

func TestOffsetRecord(t *testing.T) {
	o := Offset{Offset: 1 << 40, LeaderEpoch: 7, Metadata: "m", CommitTime: 3, ExpireTime: -1}
	got, err := UnmarshalOffset(o.Marshal())
	if err != nil || got != o {
		t.Errorf("%+v, %v", got, err)
	}
	for _, b := range [][]byte{nil, {9}, {1, 2, 3}} {
		if _, err := UnmarshalOffset(b); err == nil {
			t.Errorf("%v is read", b)
		}
	}
}
