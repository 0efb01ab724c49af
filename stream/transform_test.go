package stream_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
)

var (
	changesSeen = state.NewKeyValue("changes-seen", serde.String, serde.Int64)
)

// number gives each update of a row its number.
type number struct{ seen *state.KV[string, int64] }

func (p *number) Init(s *stream.ValueScope) error {
	p.seen = changesSeen.Open(s)
	return nil
}

func (p *number) Transform(r stream.Record[string, string]) (*string, error) {
	if r.Null {
		return nil, nil
	}
	if r.Value == "bad" {
		return nil, errors.New("bad")
	}
	n, _ := p.seen.Get(r.Key)
	p.seen.Put(r.Key, n+1)
	v := fmt.Sprintf("%s, update %d", r.Value, n+1)
	return &v, nil
}

var numberedRows = state.NewKeyValue("numbered-rows", serde.String, serde.Null(serde.String))

func newNumber() stream.ValueTransformer[string, string, *string] { return &number{} }

func ExampleKTable_TransformStored() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Table(exIn, exLeft).
				TransformStored(newNumber, numberedRows, changesSeen).
				MapValues(func(s *string) string { return *s }).
				ToStream().
				To(exOut)
		})
		in := streamtest.In(d, exIn)
		in.Send("light", "red")
		in.Send("light", "green")
		in.SendNull("light")
		printed(d, exOut)
	})
	// Output:
	// light: red, update 1
	// light: green, update 2
	// light: gone
}

// Rows are those that were computed once: a restart and a join look them up and compute nothing.
func TestTransformStored(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		t := b.Table(rows, row).TransformStored(newNumber, numberedRows, changesSeen)
		b.Stream(text).JoinTable(t, func(v string, n *string) string { return v + " " + *n }).To(out)
	}, streamtest.SkipErrors())
	in := streamtest.In(d, rows)
	in.Send("a", "x", at(1))
	in.Send("a", "bad", at(2))
	in.Send("a", "y", at(3))
	in.Send("b", "z", at(4))
	in.SendNull("b", at(5))
	d.Restart()
	for _, k := range []string{"a", "b", "a"} {
		streamtest.In(d, text).Send(k, "is", at(6))
	}
	if got, want := show(streamtest.Out(d, out).All()), "a=is y, update 2@6, a=is y, update 2@6"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n, _ := streamtest.Get(d, changesSeen, "a"); n != 2 || d.Skipped() != 0 {
		t.Error(n, d.Skipped())
	}
	b := stream.NewBuilder()
	b.Table(rows, row).TransformStored(newNumber, numberedRows)
	if _, err := b.Build(); !errors.Is(err, topology.ErrStore) || !strings.Contains(err.Error(), `store "changes-seen" is not connected`) {
		t.Error(err)
	}
}
