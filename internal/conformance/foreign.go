package conformance

import (
	"fmt"
	"strings"

	"github.com/moldau/moldau/stream"
)

func (in *interpreter) foreignKeyJoin(step Step) any {
	f, by := joiner(step.text("fn")), foreignKey(step.text("foreignKey"))
	left, right := get[ktable](in, step.in(0)), get[ktable](in, step.in(1))
	handle := stream.NewForeignKey(step.text("name"), nullable, nullable, nullable, nullable)
	if in.vector.perCommit {
		handle = handle.AlwaysAnswer() // several updates of a row are on their way at once
	}
	key := func(k, v text) (text, bool) {
		fk := by(k, v)
		return fk, fk != nil
	}
	var t ktable
	if step.text("kind") == "inner" {
		t = left.JoinForeign(right, handle, key, func(l, r text) text { return f(nil, l, r) })
	} else {
		t = left.LeftJoinForeign(right, handle, key, func(l text, r *text) text { return f(nil, l, missing(r)) })
	}
	if step.has("store") || in.keeps(step.text("id")) {
		t = t.Stored(in.keyValue(step))
	}
	return t
}

// foreignKey is a foreign key extractor.
func foreignKey(spec string) func(k, v text) text {
	name, _, n := call(spec)
	switch name {
	case "prefix":
		return func(_, v text) text {
			if v != nil {
				if fk, _, ok := strings.Cut(*v, ":"); ok {
					return s(fk)
				}
			}
			return nil
		}
	case "mod":
		return func(_, v text) text { return mod(num(v), n) }
	case "nullIfOdd":
		return func(_, v text) text {
			if odd(v) {
				return nil
			}
			return mod(num(v), n)
		}
	case "keyMod":
		return func(k, v text) text {
			var last int64
			if k != nil && *k != "" {
				last = int64((*k)[len(*k)-1])
			}
			return mod(num(v)+last, n)
		}
	}
	panic(unsupported(fmt.Sprintf("foreign key extractor %s", spec)))
}
