package wire

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed requests.txt
var requestsText string

// kind is how a field is laid out.
type kind uint8

const (
	fixed   kind = iota // size bytes
	text                // a string: its length, then bytes
	blob                // bytes: their length, then bytes
	strukt              // fields one after the other
	untyped             // never in a layout
)

// field is one field of a request in one version.
type field struct {
	kind     kind
	size     int // of a fixed field
	array    bool
	nullable bool // a struct after a presence byte
	inner    *layout
}

// layout is a struct in one version: its fields in order, and the tagged ones.
type layout struct {
	fields []field
	tagged map[uint32]field
	// fixedSize is the number of bytes of the struct if that is the same for all values, else 0.
	fixedSize int
}

// api is what the layouts file says of one request.
type api struct {
	key      int16
	name     string
	min, max int16
	flexible int16 // the first flexible version, or -1
	layouts  []*layout
}

// apis returns the requests known, by key. The file is part of the program: a mistake in it is a bug and panics.
var apis = sync.OnceValue(func() map[int16]*api {
	m, err := parse(requestsText)
	if err != nil {
		panic("wire: requests.txt: " + err.Error())
	}
	return m
})

// Known says whether the guard knows a request and a version of it, and whether that version is flexible.
func Known(key, version int16) (known, flexible bool) {
	a := apis()[key]
	if a == nil || version < a.min || version > a.max {
		return false, false
	}
	return true, a.isFlexible(version)
}

// KnownKey says whether any version of a request is known.
func KnownKey(key int16) bool { return apis()[key] != nil }

// Name returns the name of a request for logs and errors.
func Name(key int16) string {
	if a := apis()[key]; a != nil {
		return a.name
	}
	return "key " + strconv.Itoa(int(key))
}

func (a *api) isFlexible(version int16) bool { return a.flexible >= 0 && version >= a.flexible }

// line is one field as the file has it.
type line struct {
	indent   int
	typ      string
	min, max int16 // max -1: none
	tag      int   // -1: not tagged
}

func parse(text string) (map[int16]*api, error) {
	m := make(map[int16]*api)
	var a *api
	var body []line
	finish := func() error {
		if a == nil {
			return nil
		}
		for v := a.min; v <= a.max; v++ {
			l, rest, err := build(body, 1, v, a.isFlexible(v))
			if err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			if len(rest) > 0 {
				return fmt.Errorf("%s: unexpected indentation", a.name)
			}
			a.layouts = append(a.layouts, l)
		}
		m[a.key] = a
		return nil
	}
	for i, s := range strings.Split(text, "\n") {
		if s == "" || s[0] == '#' {
			continue
		}
		var err error
		if s[0] != ' ' {
			if err = finish(); err == nil {
				a, err = parseHead(s)
				body = nil
			}
		} else {
			var l line
			l, err = parseLine(s)
			body = append(body, l)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return m, finish()
}

func parseHead(s string) (*api, error) {
	a := &api{flexible: -1}
	var flexible string
	if _, err := fmt.Sscanf(s, "%d %s %d-%d flexible=%s", &a.key, &a.name, &a.min, &a.max, &flexible); err != nil {
		return nil, err
	}
	if flexible != "none" {
		n, err := strconv.ParseInt(flexible, 10, 16)
		if err != nil {
			return nil, err
		}
		a.flexible = int16(n)
	}
	return a, nil
}

func parseLine(s string) (line, error) {
	trimmed := strings.TrimLeft(s, " ")
	words := strings.Fields(trimmed)
	if len(words) < 2 {
		return line{}, fmt.Errorf("no type in %q", s)
	}
	l := line{indent: (len(s) - len(trimmed)) / 2, typ: words[1], max: -1, tag: -1}
	for _, w := range words[2:] {
		var err error
		switch {
		case strings.HasPrefix(w, "tag="):
			l.tag, err = strconv.Atoi(w[len("tag="):])
		case strings.HasSuffix(w, "+"):
			_, err = fmt.Sscanf(w, "%d+", &l.min)
		default:
			_, err = fmt.Sscanf(w, "%d-%d", &l.min, &l.max)
		}
		if err != nil {
			return line{}, fmt.Errorf("%q: %w", w, err)
		}
	}
	return l, nil
}

// build makes the layout of the lines indented by indent, and returns the lines after them.
func build(lines []line, indent int, version int16, flexible bool) (*layout, []line, error) {
	l := &layout{}
	for len(lines) > 0 && lines[0].indent == indent {
		ln := lines[0]
		lines = lines[1:]
		f := field{array: strings.HasPrefix(ln.typ, "[]")}
		typ := strings.TrimPrefix(ln.typ, "[]")
		f.nullable = strings.HasPrefix(typ, "?")
		var err error
		if f.kind, f.size, err = typeOf(strings.TrimPrefix(typ, "?")); err != nil {
			return nil, nil, err
		}
		if f.kind == strukt {
			if f.inner, lines, err = build(lines, indent+1, version, flexible); err != nil {
				return nil, nil, err
			}
		}
		if version < ln.min || ln.max >= 0 && version > ln.max {
			continue
		}
		if ln.tag >= 0 {
			if l.tagged == nil {
				l.tagged = make(map[uint32]field)
			}
			l.tagged[uint32(ln.tag)] = f
			continue
		}
		l.fields = append(l.fields, f)
	}
	if !flexible && !slices.ContainsFunc(l.fields, func(f field) bool { return f.kind != fixed || f.array }) {
		for _, f := range l.fields {
			l.fixedSize += f.size
		}
	}
	return l, lines, nil
}

func typeOf(s string) (kind, int, error) {
	switch s {
	case "bool", "int8":
		return fixed, 1, nil
	case "int16":
		return fixed, 2, nil
	case "int32":
		return fixed, 4, nil
	case "int64", "float64":
		return fixed, 8, nil
	case "uuid":
		return fixed, 16, nil
	case "string":
		return text, 0, nil
	case "bytes":
		return blob, 0, nil
	case "struct":
		return strukt, 0, nil
	}
	return untyped, 0, fmt.Errorf("unknown type %q", s)
}
