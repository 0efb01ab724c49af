package table

import (
	"fmt"

	"github.com/moldau/moldau/internal/flow"
)

// The formats of suppression buffers' changelogs, as the record's header "v" tells them. Kafka Streams has written 0 in version 2.1, 1 in
// 2.2, 2 in 2.3, and 3 since 2.4; versions 2.4.0 to 2.5.0 call 3 by the name of 2.
const (
	heldVersion = "v"
	heldLatest  = 3
)

// heldFormat is the format of a record; a deletion is the same in all.
func heldFormat(r *flow.In) int {
	if r.Value == nil {
		return heldLatest
	}
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if h := r.Headers[i]; h.Key == heldVersion {
			if len(h.Value) != 1 {
				return -1
			}
			return int(h.Value[0])
		}
	}
	return 0
}

// upgradeHeld gives a record's value in the latest format. was is what the buffer has of the key, nil: nothing; formats 0 and 1 do not
// say what was before the first update.
func upgradeHeld(r *flow.In, env flow.StoreEnv, was []byte) ([]byte, error) {
	if r.Value == nil {
		return nil, nil
	}
	switch format := heldFormat(r); format {
	case 0:
		h := Held{Time: r.Time, Offset: r.Offset, Partition: env.Partition, Headers: r.Headers}
		if env.Changelog != nil {
			h.Topic = env.Changelog.Name
		}
		in := heldReader{b: r.Value}
		h.Order = in.long()
		return in.first(&h, in.b, was)
	case 1:
		var h Held
		in := heldReader{b: r.Value}
		h.Order = in.long()
		in.context(&h)
		update := in.nullable(nil)
		in.ended()
		return in.first(&h, update, was)
	case 2:
		var h Held
		in := heldReader{b: r.Value}
		in.context(&h)
		h.Old, h.New = in.update(in.nullable(nil))
		h.Prior = in.nullable(nil)
		h.Order = in.long()
		if in.ended(); !in.short {
			return h.Append(nil), nil
		}
		_, err := ParseHeld(r.Value)
		return r.Value, err
	case heldLatest:
		_, err := ParseHeld(r.Value)
		return r.Value, err
	default:
		return nil, fmt.Errorf("%w: format %d of a suppression buffer is not known here", ErrDamaged, format)
	}
}

// update reads the old and the new value as one field of the older formats has them.
func (r *heldReader) update(b []byte) (old, latest []byte) {
	in := heldReader{b: b}
	old, latest = in.nullable(nil), in.nullable(nil)
	in.ended()
	r.short = r.short || in.short
	return old, latest
}

func (r *heldReader) ended() { r.short = r.short || len(r.b) > 0 }

// first completes what does not say what was before the first update.
func (r *heldReader) first(h *Held, update, was []byte) ([]byte, error) {
	h.Old, h.New = r.update(update)
	h.Prior = h.Old
	if r.short {
		return nil, ErrDamaged
	}
	if was != nil {
		before, err := ParseHeld(was)
		if err != nil {
			return nil, err
		}
		h.Prior = before.Prior
	}
	return h.Append(nil), nil
}
