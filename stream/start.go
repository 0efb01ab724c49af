package stream

import (
	"errors"
	"io"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// starter makes a processor for each task and calls its Init. Build tries one as well, in no task at all: only so can it say,
// along with all other mistakes, which store a processor opens and its call does not name.
func starter[P interface{ Init(S) error }, S interface{ base() *scope }](b *Builder, n *topology.Node, new func() P, with func(scope) S) func(flow.Env) (P, S, error) {
	start := func(env flow.Env) (p P, s S, err error) {
		var mistakes topology.Mistakes
		s = with(scope{env: env, node: n, b: b, ctx: &flow.Ctx{Time: -1, Offset: -1, Partition: env.Partition()}, mistakes: &mistakes})
		in := s.base()
		err = flow.Safely(func() error {
			if new != nil {
				p = new()
			}
			if any(p) == nil {
				return in.fail(topology.ErrProcessor, "there is no processor: the function that makes it is nil, or gives nil")
			}
			return p.Init(s)
		})
		if in.mistakes = nil; len(mistakes) > 0 {
			err = mistakes
		} else if in.ctx.Err != nil {
			err = in.ctx.Err // of a view
		}
		if closer, ok := any(p).(io.Closer); ok && err == nil {
			env.Close(func() error { return flow.Safely(closer.Close) })
		}
		return p, s, err
	}
	b.trials = append(b.trials, func() {
		_, _, err := start(trial{})
		var mistakes topology.Mistakes
		if errors.As(err, &mistakes) {
			for _, m := range mistakes {
				b.graph.Fail(m.Kind, m.At, "%s", m.Text)
			}
		}
	})
	return start
}

// trial is what a processor sees of a task when Build tries its Init: nothing is behind a store, and nothing happens.
type trial struct{ flow.Env }

// errTrial breaks the view of a store: it is empty and takes nothing.
var errTrial = errors.New("stores are empty while Build tries Init")

func (trial) Partition() int32                                                 { return 0 }
func (trial) Store(string) flow.Store                                          { return nil }
func (trial) Every(int, int64, bool, func(*flow.Ctx, int64)) (stop func())     { return func() {} }
func (trial) Idle(int, func() (at int64, ok bool, err error), func(*flow.Ctx)) {}

// Close comes when Init has returned, for a task that does not begin.
func (trial) Close(f func() error) { _ = f() }
