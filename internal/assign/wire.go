package assign

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The user data of the group protocol. A join carries a Hello; the leader answers each member with the whole Plan, so
// that every process knows where to find a key. Both begin with a version; readers refuse those they do not know.
const version = 1

// ErrVersion: the data were written by another version of Moldau.
var ErrVersion = errors.New("unknown version of the assignment data")

var errShort = errors.New("assignment data are cut short or malformed")

// Hello is what a member tells the leader besides its topics.
type Hello struct {
	Endpoint string
	Local    []Local
	Patterns []string // by which it reads topics
}

// AppendHello appends the encoding of h to dst.
func AppendHello(dst []byte, h Hello) []byte {
	dst = append(dst, version)
	dst = appendString(dst, h.Endpoint)
	dst = binary.AppendUvarint(dst, uint64(len(h.Local)))
	for _, l := range h.Local {
		dst = appendTask(dst, l.Task)
		dst = binary.AppendVarint(dst, l.Lag)
	}
	if len(h.Patterns) == 0 { // as before there were any
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(h.Patterns)))
	for _, p := range h.Patterns {
		dst = appendString(dst, p)
	}
	return dst
}

// DecodeHello reads what AppendHello wrote.
func DecodeHello(src []byte) (Hello, error) {
	d, err := newDecoder(src)
	if err != nil {
		return Hello{}, err
	}
	h := Hello{Endpoint: d.string()}
	for range d.count(3) {
		h.Local = append(h.Local, Local{Task: d.task(), Lag: d.varint()})
	}
	if len(d.src) > 0 {
		for range d.count(1) {
			h.Patterns = append(h.Patterns, d.string())
		}
	}
	return h, d.end()
}

// AppendPlan appends the encoding of p to dst.
func AppendPlan(dst []byte, p Plan) []byte {
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, uint64(len(p.Members)))
	for _, s := range p.Members {
		dst = appendString(dst, s.ID)
		dst = appendString(dst, s.Endpoint)
		dst = appendTasks(dst, s.Active)
		dst = appendTasks(dst, s.Standby)
	}
	if len(p.Releasing) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(p.Releasing)))
	for _, id := range p.Releasing {
		dst = appendString(dst, id)
	}
	return dst
}

// DecodePlan reads what AppendPlan wrote.
func DecodePlan(src []byte) (Plan, error) {
	d, err := newDecoder(src)
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	for range d.count(4) {
		p.Members = append(p.Members, Share{ID: d.string(), Endpoint: d.string(), Active: d.tasks(), Standby: d.tasks()})
	}
	if len(d.src) > 0 {
		for range d.count(1) {
			p.Releasing = append(p.Releasing, d.string())
		}
		d.bad = d.bad || len(p.Releasing) == 0 // none are not written
	}
	return p, d.end()
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendTask(dst []byte, t Task) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(uint32(t.Sub))), uint64(uint32(t.Partition)))
}

func appendTasks(dst []byte, tasks []Task) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(tasks)))
	for _, t := range tasks {
		dst = appendTask(dst, t)
	}
	return dst
}

// decoder reads until something is wrong; from then on it returns zeros.
type decoder struct {
	src []byte
	bad bool
}

func newDecoder(src []byte) (*decoder, error) {
	if len(src) == 0 {
		return nil, errShort
	}
	if src[0] != version {
		return nil, fmt.Errorf("%w: %d, this program knows %d; bring all processes to one version", ErrVersion, src[0], version)
	}
	return &decoder{src: src[1:]}, nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.src)
	if n <= 0 {
		d.bad, d.src = true, nil
		return 0
	}
	d.src = d.src[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.src)
	if n <= 0 {
		d.bad, d.src = true, nil
		return 0
	}
	d.src = d.src[n:]
	return v
}

// count reads a number of elements of at least size bytes each; one that cannot be there is refused before anything is
// allocated for it.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.src)/size) {
		d.bad, d.src = true, nil
		return 0
	}
	return int(v)
}

func (d *decoder) string() string {
	n := d.count(1)
	s := string(d.src[:n])
	d.src = d.src[n:]
	return s
}

func (d *decoder) int32() int32 {
	v := d.uvarint()
	if v > 1<<31-1 {
		d.bad, d.src = true, nil
		return 0
	}
	return int32(v)
}

func (d *decoder) task() Task { return Task{Sub: d.int32(), Partition: d.int32()} }

func (d *decoder) tasks() []Task {
	var tasks []Task
	for range d.count(2) {
		tasks = append(tasks, d.task())
	}
	return tasks
}

func (d *decoder) end() error {
	if d.bad || len(d.src) > 0 {
		return errShort
	}
	return nil
}
