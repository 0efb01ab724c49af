package commit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/moldau/moldau/internal/cluster"
)

var refusals = map[string]error{
	"fenced":       cluster.ErrFenced,
	"generation":   cluster.ErrGeneration,
	"aborted":      cluster.ErrAborted,
	"unknown":      cluster.ErrUnknown,
	"too-large":    cluster.ErrTooLarge,
	"unauthorized": cluster.ErrUnauthorized,
	"metadata":     cluster.ErrMetadata,
	"network":      errors.New("connection reset"),
}

// stage is a worker of few lines: it seals what has been worked on and prints everything else that it is asked to do.
type stage struct {
	m       *Machine
	worked  map[Task]map[cluster.TP]cluster.Offset // in the open epoch
	records bool                                   // sealing leaves changelog records
	reject  error
	out     strings.Builder
}

// TestScenarios plays the files of testdata. The commands:
//
//	new [at-least-once] [interval=ms]      a machine
//	join TASK [seq=N]                      a task
//	work TASK TOPIC/P=OFFSET ... [sink]    the task has stepped up to there; sink: with effects to produce
//	changelog                              sealing leaves records from now on
//	tick MS | acked EPOCH [ERR] | answer [ERR] | compared [TASK=SEQ[/WRITER]]... [ERR]
//	hurry | stop | revoke TASK... | lost TASK... | retract WHY|REFUSAL | reject WHY | bad-seal
//
// A command is followed by the actions that it caused and the machine's state.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &stage{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			if d.Input != "" {
				for line := range strings.Lines(d.Input) {
					s.do(t, d, strings.Fields(line))
				}
			} else {
				d.Fatalf(t, "no input")
			}
			return s.out.String()
		})
	})
}

func (s *stage) do(t *testing.T, d *datadriven.TestData, f []string) {
	if len(f) == 0 || strings.HasPrefix(f[0], "#") {
		return
	}
	cmd, args := f[0], f[1:]
	refusal := func() (err error) {
		if n := len(args); n > 0 && refusals[args[n-1]] != nil {
			err, args = refusals[args[n-1]], args[:n-1]
		}
		return err
	}
	switch cmd {
	case "new":
		cfg := Config{Transactional: true, Interval: 100, GiveUp: 5000, Writer: 7}
		for _, a := range args {
			if a == "at-least-once" {
				cfg.Transactional = false
			}
		}
		s.m, s.worked, s.records, s.reject = New(cfg), map[Task]map[cluster.TP]cluster.Offset{}, false, nil
	case "join":
		seq := int64(0)
		for _, a := range args[1:] {
			seq = number(t, strings.TrimPrefix(a, "seq="))
		}
		s.m.Join(args[0], seq)
	case "work":
		w := s.worked[args[0]]
		if w == nil {
			w = map[cluster.TP]cluster.Offset{}
			s.worked[args[0]] = w
		}
		sink := false
		for _, a := range args[1:] {
			if a == "sink" {
				sink = true
				continue
			}
			k, v, _ := strings.Cut(a, "=")
			w[partition(t, k)] = cluster.Offset{At: number(t, v)}
		}
		if sink {
			s.m.Collected()
		} else {
			s.m.Worked()
		}
	case "changelog":
		s.records = true
	case "bad-seal":
		s.reject = errors.New("the store's serde failed")
	case "tick":
		s.m.Tick(number(t, args[0]))
	case "acked":
		err := refusal()
		s.m.Acked(uint32(number(t, args[0])), err)
	case "answer":
		s.m.Answer(refusal())
	case "compared":
		err := refusal()
		got := map[Task]Sequence{}
		for _, a := range args {
			k, v, _ := strings.Cut(a, "=")
			v, w, _ := strings.Cut(v, "/")
			got[k] = Sequence{number(t, v), 7}
			if w != "" {
				got[k] = Sequence{number(t, v), number(t, w)}
			}
		}
		s.m.Compared(got, err)
	case "hurry":
		s.m.Hurry()
	case "stop":
		s.m.Stop()
	case "revoke":
		s.m.Revoke(args...)
	case "lost":
		s.m.Lost(args...)
	case "retract":
		why := errors.New(strings.Join(args, " "))
		if known := refusals[args[0]]; known != nil {
			why = known
		}
		s.m.Retract(why)
	case "reject":
		s.m.Reject(errors.New(strings.Join(args, " ")))
	default:
		d.Fatalf(t, "unknown command %s", cmd)
	}
	fmt.Fprintf(&s.out, "%s\n", strings.Join(f, " "))
	s.play()
	fmt.Fprintf(&s.out, "  = epoch %d, %s", s.m.Epoch(), s.m.State())
	if !s.m.MayStep() {
		s.out.WriteString(", no steps")
	}
	if at, ok := s.m.Next(); ok {
		fmt.Fprintf(&s.out, ", tick at %d", at)
	}
	if err := s.m.Cause(); err != nil {
		fmt.Fprintf(&s.out, ", because: %v", err)
	}
	s.out.WriteString("\n")
}

// play carries out what can be carried out here and prints it all.
func (s *stage) play() {
	for {
		actions := s.m.Take()
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			fmt.Fprintf(&s.out, "  %s\n", show(a))
			switch a.Kind {
			case Seal:
				if s.reject != nil {
					s.m.Reject(s.reject)
					break
				}
				var parts []Part
				for _, t := range slices.Sorted(maps.Keys(s.worked)) {
					parts = append(parts, Part{Task: t, Positions: s.worked[t]})
				}
				s.worked = map[Task]map[cluster.TP]cluster.Offset{}
				s.m.Sealed(parts, s.records)
			case Undo:
				s.worked = map[Task]map[cluster.TP]cluster.Offset{}
			}
		}
	}
}

func show(a Action) string {
	var b strings.Builder
	b.WriteString(a.Kind.String())
	if a.Epoch > 0 {
		fmt.Fprintf(&b, " %d", a.Epoch)
	}
	if a.Transaction {
		b.WriteString(" transaction")
	}
	for _, t := range a.Tasks {
		b.WriteString(" " + t)
	}
	for _, tp := range sortedTPs(a.Offsets) {
		seq, err := ReadSequence(a.Offsets[tp].Metadata)
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&b, " %s/%d=%d#%d", tp.Topic, tp.Partition, a.Offsets[tp].At, seq.Number)
	}
	if a.Err != nil {
		fmt.Fprintf(&b, ": %v", a.Err)
	}
	return b.String()
}

func sortedTPs[V any](m map[cluster.TP]V) []cluster.TP {
	return slices.SortedFunc(maps.Keys(m), func(a, b cluster.TP) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition - b.Partition)
	})
}

func number(t *testing.T, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func partition(t *testing.T, s string) cluster.TP {
	topic, p, _ := strings.Cut(s, "/")
	return cluster.TP{Topic: topic, Partition: int32(number(t, p))}
}
