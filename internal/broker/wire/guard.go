package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits on what one request may make the decoder do. A request within them costs at most a few times its own size.
const (
	// MaxElements bounds the array elements of a request, nested ones included.
	MaxElements = 200_000
	// MaxTags bounds the tagged fields of a request. Clients send one or two.
	MaxTags = 64
)

// ErrMalformed is wrapped by every error about the content of a frame. The connection is not in a state to go on.
var ErrMalformed = errors.New("malformed request")

// Check walks a request's body without allocating and returns an error unless every length and count in it is covered
// by the bytes that follow and the whole stays within the limits. What Check passes, kmsg decodes in time and memory
// proportional to len(body). Bytes after the body are not looked at.
func Check(key, version int16, body []byte) error {
	a := apis()[key]
	if a == nil || version < a.min || version > a.max {
		return fmt.Errorf("%w: %s version %d is not known", ErrMalformed, Name(key), version)
	}
	w := walker{rest: body, flexible: a.isFlexible(version)}
	w.structure(a.layouts[version-a.min])
	if w.err != "" {
		return fmt.Errorf("%w: %s version %d, byte %d of %d: %s", ErrMalformed, a.name, version, len(body)-len(w.rest), len(body), w.err)
	}
	return nil
}

// walker reads through a body. The first error sticks.
type walker struct {
	rest     []byte
	flexible bool
	elements int
	tags     int
	err      string
}

func (w *walker) fail(reason string) {
	if w.err == "" {
		w.err = reason
	}
}

func (w *walker) skip(n int) {
	if n < 0 || n > len(w.rest) {
		w.fail("a field ends after the request")
		return
	}
	w.rest = w.rest[n:]
}

// uvarint reads an unsigned varint of at most 32 bits, as kmsg does.
func (w *walker) uvarint() uint32 {
	var v uint32
	for i := range 5 {
		if i >= len(w.rest) {
			break
		}
		b := w.rest[i]
		if i == 4 && b > 0x0f {
			break
		}
		v |= uint32(b&0x7f) << (7 * i)
		if b < 0x80 {
			w.rest = w.rest[i+1:]
			return v
		}
	}
	w.fail("a varint that never ends")
	return 0
}

func (w *walker) int16() int {
	if len(w.rest) < 2 {
		w.fail("a field ends after the request")
		return 0
	}
	v := int16(binary.BigEndian.Uint16(w.rest))
	w.rest = w.rest[2:]
	return int(v)
}

func (w *walker) int32() int {
	if len(w.rest) < 4 {
		w.fail("a field ends after the request")
		return 0
	}
	v := int32(binary.BigEndian.Uint32(w.rest))
	w.rest = w.rest[4:]
	return int(v)
}

// length reads the length of a string (wide false) or of bytes or an array (wide true); -1 is null.
func (w *walker) length(wide bool) int {
	switch {
	case w.flexible:
		return int(w.uvarint()) - 1
	case wide:
		return w.int32()
	default:
		return w.int16()
	}
}

func (w *walker) structure(l *layout) {
	for i := range l.fields {
		if w.err != "" {
			return
		}
		w.field(&l.fields[i])
	}
	if w.flexible && w.err == "" {
		w.tagSection(l.tagged)
	}
}

func (w *walker) field(f *field) {
	if !f.array {
		w.value(f)
		return
	}
	n := w.length(true)
	if w.err != "" || n <= 0 {
		if n < -1 {
			w.fail("an array of negative length")
		}
		return
	}
	// Every element takes a byte at least, so a count past the bytes that are left is refused before anything is
	// walked, let alone allocated.
	if n > len(w.rest) {
		w.fail("an array longer than the request")
		return
	}
	if w.elements += n; w.elements > MaxElements {
		w.fail("too many array elements")
		return
	}
	switch {
	case f.kind == fixed:
		w.skip(n * f.size)
	case f.kind == strukt && f.inner.fixedSize > 0:
		w.skip(n * f.inner.fixedSize)
	default:
		for range n {
			if w.value(f); w.err != "" {
				return
			}
		}
	}
}

func (w *walker) value(f *field) {
	switch f.kind {
	case fixed:
		w.skip(f.size)
	case text, blob:
		if n := w.length(f.kind == blob); n > 0 && w.err == "" {
			w.skip(n)
		} else if n < -1 {
			w.fail("a string of negative length")
		}
	case strukt:
		if f.nullable {
			if len(w.rest) == 0 {
				w.fail("a field ends after the request")
				return
			}
			present := int8(w.rest[0])
			w.rest = w.rest[1:]
			if present < 0 {
				return
			}
		}
		w.structure(f.inner)
	}
}

// tagSection walks the tagged fields at the end of a struct. Those that the decoder looks into are walked inside too:
// they may hold tags of their own.
func (w *walker) tagSection(tagged map[uint32]field) {
	n := w.uvarint()
	if w.tags += int(n); n > MaxTags || w.tags > MaxTags {
		w.fail("too many tagged fields")
		return
	}
	for range n {
		tag, size := w.uvarint(), w.uvarint()
		if w.err != "" {
			return
		}
		if uint64(size) > uint64(len(w.rest)) {
			w.fail("a tagged field ends after the request")
			return
		}
		if f, known := tagged[tag]; known {
			in := walker{rest: w.rest[:size], flexible: true, elements: w.elements, tags: w.tags}
			in.field(&f)
			if in.err != "" {
				w.fail(in.err)
				return
			}
			w.elements, w.tags = in.elements, in.tags
		}
		w.rest = w.rest[size:]
	}
}
