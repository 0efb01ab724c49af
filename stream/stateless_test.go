package stream_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

var (
	text    = stream.NewTopic("text", serde.String, serde.String)
	other   = stream.NewTopic("other", serde.String, serde.String)
	out     = stream.NewTopic("out", serde.String, serde.String)
	out2    = stream.NewTopic("out2", serde.String, serde.String)
	numbers = stream.NewTopic("numbers", serde.String, serde.Int64)
	byKey   = stream.NewRepartition("by-key", serde.String, serde.String)
)

// at is a time in milliseconds.
func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// show writes records as key=value@ms with headers, null as ~.
func show[K, V any](records []stream.Record[K, V]) string {
	var lines []string
	for _, r := range records {
		k, v := fmt.Sprint(r.Key), fmt.Sprint(r.Value)
		if r.KeyNull {
			k = "~"
		}
		if r.Null {
			v = "~"
		}
		line := fmt.Sprintf("%s=%s@%d", k, v, r.Time.UnixMilli())
		for _, h := range r.Headers {
			line += fmt.Sprintf(" %s:%s", h.Key, h.Value)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ", ")
}

func TestStateless(t *testing.T) {
	type (
		S = stream.KStream[string, string]
		R = stream.Record[string, string]
	)
	boom := errors.New("boom")
	tests := []struct {
		name  string
		build func(s *S) *S
		want  string
	}{
		{"nothing", func(s *S) *S { return s }, "a=1@10 h:x, b=~@20, ~=two@30, c=@40"},
		{"filter passes nulls by", func(s *S) *S {
			return s.Filter(func(_, v string) bool { return v == "1" })
		}, "a=1@10 h:x, b=~@20"},
		{"filterNot", func(s *S) *S {
			return s.FilterNot(func(k, _ string) bool { return k == "a" })
		}, "b=~@20, ~=two@30, c=@40"},
		{"tryFilter sees nulls", func(s *S) *S {
			return s.TryFilter(func(r R) (bool, error) { return !r.Null && !r.KeyNull, nil })
		}, "a=1@10 h:x, c=@40"},
		{"mapValues", func(s *S) *S {
			return s.MapValues(func(v string) string { return v + "!" })
		}, "a=1!@10 h:x, b=~@20, ~=two!@30, c=!@40"},
		{"mapValues to a pointer", func(s *S) *S {
			return s.MapValues(func(v string) *string {
				if v == "" {
					return nil
				}
				return &v
			}).MapValues(func(p *string) string {
				if p == nil {
					return "nil"
				}
				return *p
			})
		}, "a=1@10 h:x, b=nil@20, ~=two@30, c=nil@40"},
		{"tryMapValues", func(s *S) *S {
			return s.TryMapValues(func(r R) (string, error) {
				return fmt.Sprint(r.Key, r.KeyNull, r.Null, r.Time.UnixMilli(), len(r.Headers)), nil
			})
		}, "a=afalse false 10 1@10 h:x, b=bfalse true 20 0@20, ~=true false 30 0@30, c=cfalse false 40 0@40"},
		{"flatMapValues", func(s *S) *S {
			return s.FlatMapValues(func(v string) []string { return strings.Split(v, "") })
		}, "a=1@10 h:x, b=~@20, ~=t@30, ~=w@30, ~=o@30"},
		{"map", func(s *S) *S {
			return s.Map(func(k, v string) (string, string) { return v, k })
		}, "1=a@10 h:x, =~@20, two=@30, =c@40"},
		{"tryMap sets all", func(s *S) *S {
			return s.TryMap(func(r R) (R, error) {
				r.Headers = append(slices.Clone(r.Headers), stream.Header{Key: "n", Value: []byte("1")})
				r.Time = r.Time.Add(time.Millisecond)
				return r, nil
			})
		}, "a=1@11 h:x n:1, b=~@21 n:1, ~=two@31 n:1, c=@41 n:1"},
		{"flatMap", func(s *S) *S {
			return s.FlatMap(func(r R, yield func(string, string)) error {
				for i := range len(r.Value) {
					yield(strconv.Itoa(i), r.Value[i:i+1])
				}
				return nil
			})
		}, "0=1@10 h:x, 0=t@30, 1=w@30, 2=o@30"},
		{"selectKey", func(s *S) *S {
			return s.SelectKey(func(_, v string) string { return v })
		}, "1=1@10 h:x, =~@20, two=two@30, =@40"},
		{"selectKey to nil", func(s *S) *S {
			return s.SelectKey(func(k, _ string) []byte {
				if k == "a" {
					return nil
				}
				return []byte(k)
			}).SelectKey(func(k []byte, v string) string { return fmt.Sprint(k == nil, v) })
		}, "true1=1@10 h:x, false=~@20, falsetwo=two@30, false=@40"},
		{"trySelectKey", func(s *S) *S {
			return s.TrySelectKey(func(r R) (string, bool, error) { return r.Value, r.Value != "1", nil })
		}, "~=1@10 h:x, =~@20, two=two@30, =@40"},
		{"siblings see the record as it came", func(s *S) *S {
			a := s.TryMap(func(r R) (R, error) {
				r.Time, r.Headers, r.Null, r.KeyNull = at(0), nil, true, true
				return r, nil
			})
			return a.Merge(s).Filter(func(_, v string) bool { return v == "1" })
		}, "~=~@0, a=1@10 h:x, ~=~@0, b=~@20, ~=~@0, ~=~@0"},
		{"merge with itself", func(s *S) *S {
			one := s.Filter(func(_, v string) bool { return v == "1" }).TryFilter(func(r R) (bool, error) { return !r.Null, nil })
			return one.Merge(one)
		}, "a=1@10 h:x"},
		{"split", func(s *S) *S {
			b := s.Split()
			one := b.When(func(_, v string) bool { return v == "1" })
			rest := b.Rest().MapValues(func(v string) string { return "rest " + v })
			two := b.When(func(_, v string) bool { return v < "3" }).MapValues(func(v string) string { return "two " + v })
			return one.Merge(rest).Merge(two)
		}, "a=1@10 h:x, b=~@20, ~=rest two@30, c=two @40"},
		{"split by conditions that may fail", func(s *S) *S {
			b := s.Split()
			null := b.TryWhen(func(r R) (bool, error) {
				if r.Value == "two" {
					return false, boom
				}
				return r.Null, nil
			})
			one := b.When(func(_, v string) bool { return v == "1" }).MapValues(func(v string) string { return "one " + v })
			rest := b.Rest().MapValues(func(v string) string { return "rest " + v })
			return null.Merge(one).Merge(rest)
		}, "a=one 1@10 h:x, b=~@20, c=rest @40"},
		{"split without rest", func(s *S) *S {
			return s.Split().When(func(_, v string) bool { return v == "1" })
		}, "a=1@10 h:x"},
		{"errors are skipped with all they did", func(s *S) *S {
			bad := s.TryMapValues(func(r R) (string, error) {
				if r.Value == "two" {
					return "", boom
				}
				return r.Value, nil
			})
			return s.Merge(bad)
		}, "a=1@10 h:x, a=1@10 h:x, b=@20, b=~@20, c=@40, c=@40"},
		{"process", func(s *S) *S {
			return s.ProcessFunc(func(c *stream.Context[string, string], r R) error {
				c.Forward(r.With("f" + r.Value))
				c.Emit("e", r.Value)
				_, _, offset, ok := c.Source()
				c.Emit(fmt.Sprint(offset, ok), c.StreamTime().Format("05.000"))
				return nil
			}).Filter(func(k, _ string) bool { return k != "" && k != "b" && k != "c" })
		}, "a=f1@10 h:x, e=1@10 h:x, 0 true=00.010@10 h:x, e=@20, 1 true=00.020@20, e=two@30, 2 true=00.030@30, e=@40, 3 true=00.040@40"},
		{"assumePartitioned", func(s *S) *S { return s.AssumePartitioned().Named("sure") }, "a=1@10 h:x, b=~@20, ~=two@30, c=@40"},
		{"repartition leaves null keys out", func(s *S) *S { return s.Repartition(byKey) }, "a=1@10 h:x, b=~@20, c=@40"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := streamtest.New(t, func(b *stream.Builder) { test.build(b.Stream(text)).To(out) }, streamtest.SkipErrors())
			in := streamtest.In(d, text)
			in.SendRecord(R{Key: "a", Value: "1", Time: at(10), Headers: []stream.Header{{Key: "h", Value: []byte("x")}}})
			in.SendNull("b", at(20))
			in.SendRecord(R{KeyNull: true, Value: "two", Time: at(30)})
			in.Send("c", "", at(40))
			if got := show(streamtest.Out(d, out).All()); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}
