package conformance

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
)

// unsupported is a spec that cannot be built; it travels as a panic to whoever builds.
type unsupported string

func (u unsupported) Error() string { return "not supported: " + string(u) }

// text is a string that may be null.
type text = *string

func s(v string) text { return &v }

func str(v text) string {
	if v == nil {
		return "null"
	}
	return *v
}

var decimal = regexp.MustCompile(`^-?[0-9]{1,18}$`)

func num(v text) int64 {
	if v == nil {
		return 0
	}
	if decimal.MatchString(*v) {
		n, _ := strconv.ParseInt(*v, 10, 64)
		return n
	}
	return int64(len(*v))
}

func dec(n int64) text { return s(strconv.FormatInt(n, 10)) }

func limit(v string) text {
	if len(v) > 60 {
		v = v[:20] + "~" + v[len(v)-39:]
	}
	return &v
}

func floorMod(a, n int64) int64 { return (a%n + n) % n }
func odd(v text) bool           { return floorMod(num(v), 2) == 1 }
func mod(x, n int64) text       { return s("k" + strconv.FormatInt(floorMod(x, n), 10)) }

func nul(x, n int64) text {
	if floorMod(x, n) == 0 {
		return nil
	}
	return dec(x)
}

// call splits "name:argument".
func call(spec string) (name, arg string, n int64) {
	name, arg, _ = strings.Cut(spec, ":")
	n, _ = strconv.ParseInt(arg, 10, 64)
	return name, arg, n
}

func predicate(spec string) func(k, v text) bool {
	name, arg, n := call(spec)
	switch name {
	case "always":
		return func(_, _ text) bool { return true }
	case "never":
		return func(_, _ text) bool { return false }
	case "even":
		return func(_, v text) bool { return !odd(v) }
	case "odd":
		return func(_, v text) bool { return odd(v) }
	case "notNull":
		return func(_, v text) bool { return v != nil }
	case "nonEmpty":
		return func(_, v text) bool { return v != nil && *v != "" }
	case "atLeast":
		return func(_, v text) bool { return num(v) >= n }
	case "valueStarts":
		return func(_, v text) bool { return v != nil && strings.HasPrefix(*v, arg) }
	case "keyIs":
		return func(k, _ text) bool { return k != nil && *k == arg }
	}
	panic(unsupported("predicate " + spec))
}

func selector(spec string) func(k, v text) text {
	name, arg, n := call(spec)
	switch name {
	case "same":
		return func(k, _ text) text { return k }
	case "value":
		return func(_, v text) text { return v }
	case "firstChar":
		return func(_, v text) text {
			if v == nil || *v == "" {
				return nil
			}
			return s((*v)[:1])
		}
	case "mod":
		return func(_, v text) text { return mod(num(v), n) }
	case "nullIfOdd":
		return func(k, v text) text {
			if odd(v) {
				return nil
			}
			return k
		}
	case "plus":
		return func(k, _ text) text {
			if k == nil {
				return nil
			}
			return limit(*k + arg)
		}
	case "strip":
		return func(k, _ text) text {
			if k == nil {
				return nil
			}
			before, _, _ := strings.Cut(*k, "@")
			return s(before)
		}
	case "const":
		return func(_, _ text) text { return s(arg) }
	}
	panic(unsupported("key selector " + spec))
}

var errMapper = errors.New("the value mapper throws")

func mapper(spec string) func(k, v text) (text, error) {
	name, arg, n := call(spec)
	var f func(k, v text) text
	switch name {
	case "same":
		f = func(_, v text) text { return v }
	case "upper":
		f = func(_, v text) text {
			if v == nil {
				return nil
			}
			return s(strings.ToUpper(*v))
		}
	case "append":
		f = func(_, v text) text { return limit(str(v) + arg) }
	case "add":
		f = func(_, v text) text { return dec(num(v) + n) }
	case "length":
		f = func(_, v text) text {
			if v == nil {
				return s("0")
			}
			return dec(int64(len(*v)))
		}
	case "nullIfMultiple":
		f = func(_, v text) text {
			if floorMod(num(v), n) == 0 {
				return nil
			}
			return v
		}
	case "failIfMultiple":
		return func(_, v text) (text, error) {
			if num(v) != 0 && floorMod(num(v), n) == 0 {
				return nil, errMapper
			}
			return v, nil
		}
	case "fk":
		f = func(_, v text) text { return limit(*mod(num(v), n) + ":" + str(v)) }
	case "const":
		f = func(_, _ text) text { return s(arg) }
	case "null":
		f = func(_, _ text) text { return nil }
	case "key":
		f = func(k, _ text) text { return k }
	case "keyValue":
		f = func(k, v text) text { return limit(str(k) + "=" + str(v)) }
	default:
		panic(unsupported("value mapper " + spec))
	}
	return func(k, v text) (text, error) { return f(k, v), nil }
}

func flatMapper(spec string) func(k, v text) []text {
	name, _, n := call(spec)
	switch name {
	case "none":
		return func(_, _ text) []text { return nil }
	case "repeat":
		return func(_, v text) (all []text) {
			for range n {
				all = append(all, v)
			}
			return all
		}
	case "split":
		return func(_, v text) (all []text) {
			if v != nil {
				for part := range strings.SplitSeq(*v, ",") {
					if part != "" {
						all = append(all, s(part))
					}
				}
			}
			return all
		}
	case "spread":
		return func(_, v text) (all []text) {
			for i := range floorMod(num(v), 4) {
				all = append(all, limit(str(v)+"."+strconv.FormatInt(i, 10)))
			}
			return all
		}
	}
	panic(unsupported("flat mapper " + spec))
}

func reducer(spec string) func(a, b text) text {
	name, _, n := call(spec)
	switch name {
	case "concat":
		return func(a, b text) text { return limit(str(a) + str(b)) }
	case "minus":
		return func(a, b text) text { return limit(str(a) + "-" + str(b)) }
	case "sum":
		return func(a, b text) text { return dec(num(a) + num(b)) }
	case "diff":
		return func(a, b text) text { return dec(num(a) - num(b)) }
	case "max":
		return func(a, b text) text {
			if num(b) > num(a) {
				return b
			}
			return a
		}
	case "first":
		return func(a, _ text) text { return a }
	case "last":
		return func(_, b text) text { return b }
	case "sumNull":
		return func(a, b text) text { return nul(num(a)+num(b), n) }
	}
	panic(unsupported("reducer " + spec))
}

func aggregator(spec string) func(k, v, g text) text {
	name, _, n := call(spec)
	switch name {
	case "append":
		return func(_, v, g text) text { return limit(str(g) + str(v)) }
	case "plus":
		return func(_, v, g text) text { return limit(str(g) + "+" + str(v)) }
	case "minus":
		return func(_, v, g text) text { return limit(str(g) + "-" + str(v)) }
	case "keyValue":
		return func(k, v, g text) text { return limit(str(g) + str(k) + "=" + str(v) + ";") }
	case "sum":
		return func(_, v, g text) text { return dec(num(g) + num(v)) }
	case "diff":
		return func(_, v, g text) text { return dec(num(g) - num(v)) }
	case "inc":
		return func(_, _, g text) text { return dec(num(g) + 1) }
	case "dec":
		return func(_, _, g text) text { return dec(num(g) - 1) }
	case "max":
		return func(_, v, g text) text {
			if num(v) > num(g) {
				return v
			}
			return g
		}
	case "last":
		return func(_, v, _ text) text { return v }
	case "sumNull":
		return func(_, v, g text) text { return nul(num(g)+num(v), n) }
	}
	panic(unsupported("aggregator " + spec))
}

func joiner(spec string) func(k, l, r text) text {
	switch spec {
	case "pair":
		return func(_, l, r text) text { return limit(str(l) + "+" + str(r)) }
	case "pairKey":
		return func(k, l, r text) text { return limit(str(k) + ":" + str(l) + "+" + str(r)) }
	case "sum":
		return func(_, l, r text) text { return dec(num(l) + num(r)) }
	case "left":
		return func(_, l, _ text) text { return l }
	case "right":
		return func(_, _, r text) text { return r }
	case "nullIfOdd":
		return func(_, l, r text) text {
			if floorMod(num(l)+num(r), 2) == 1 {
				return nil
			}
			return limit(str(l) + "+" + str(r))
		}
	}
	panic(unsupported("joiner " + spec))
}

func topicOf(spec string) func(v text) string {
	name, arg, _ := call(spec)
	if name != "parity" {
		panic(unsupported("topic extractor " + spec))
	}
	return func(v text) string {
		if odd(v) {
			return arg + "-odd"
		}
		return arg + "-even"
	}
}

var digits = regexp.MustCompile(`^[0-9]{1,18}$`)

// embedded is the number after the first '#' of a value, or -1.
func embedded(v text) int64 {
	if v == nil {
		return -1
	}
	_, after, _ := strings.Cut(*v, "#")
	if !digits.MatchString(after) {
		return -1
	}
	n, _ := strconv.ParseInt(after, 10, 64)
	return n
}
