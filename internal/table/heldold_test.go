package table

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/moldau/moldau/internal/flow"
)

// TestOlderHeldFormats writes updates as Kafka Streams 2.1 to 2.3 did, and reads them in the latest format.
func TestOlderHeldFormats(t *testing.T) {
	long := func(b []byte, n int64) []byte {
		return append(b, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	update := func(old, latest []byte) []byte { return appendNullable(appendNullable(nil, old), latest) }
	context := func(b []byte) []byte {
		b = appendInt(appendBytes(long(long(b, 5), 7), []byte("in")), 3)
		return appendNullable(appendBytes(appendInt(b, 1), []byte("h")), nil)
	}
	from := Held{Time: 5, Offset: 7, Topic: "in", Partition: 3, Headers: []flow.Header{{Key: "h"}}}
	self := Held{Time: 50, Offset: 70, Topic: "app-store-changelog", Partition: 2}
	with := func(h Held, prior, old, latest string, order int64) *Held {
		h.Prior, h.Old, h.New, h.Order = text(prior), text(old), text(latest), order
		return &h
	}
	v := func(n byte) []flow.Header { return []flow.Header{{Key: "v", Value: []byte{n}}} }
	kept := with(from, "p", "o", "n", 9).Append(nil)

	tests := []struct {
		name    string
		headers []flow.Header
		value   []byte
		was     []byte
		want    *Held // nil: damaged
	}{
		{"0", nil, append(long(nil, 11), update(text("o"), text("n"))...), nil, with(self, "o", "o", "n", 11)},
		{"0, after another", nil, append(long(nil, 11), update(text("o"), nil)...), kept, with(self, "p", "o", "", 11)},
		{"0, cut off", nil, long(nil, 11), nil, nil},
		{"1", v(1), appendNullable(context(long(nil, 11)), update(nil, text("n"))), nil, with(from, "", "", "n", 11)},
		{"1, after another", v(1), appendNullable(context(long(nil, 11)), update(text("o"), text("n"))), kept, with(from, "p", "o", "n", 11)},
		{"1, too long", v(1), append(appendNullable(context(long(nil, 11)), update(nil, text("n"))), 0), nil, nil},
		{"2", v(2), long(appendNullable(appendNullable(context(nil), update(text("o"), text("n"))), text("p")), 11), nil, with(from, "p", "o", "n", 11)},
		{"2, which is 3", v(2), kept, nil, with(from, "p", "o", "n", 9)},
		{"3", v(3), kept, nil, with(from, "p", "o", "n", 9)},
		{"2, damaged", v(2), kept[:len(kept)-1], nil, nil},
		{"4", v(4), kept, nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := &flow.In{Offset: 70, Time: 50, Key: []byte("k"), Value: test.value, Headers: test.headers}
			b, err := upgradeHeld(r, flow.StoreEnv{Partition: 2, Changelog: &flow.Topic{Name: "app-store-changelog"}}, test.was)
			if test.want == nil {
				if !errors.Is(err, ErrDamaged) {
					t.Errorf("%x, %v", b, err)
				}
				return
			}
			if err != nil || !slices.Equal(b, test.want.Append(nil)) {
				got, _ := ParseHeld(b)
				t.Errorf("%v\n got  %s\n want %s", err, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", *test.want))
			}
		})
	}
	if b, err := upgradeHeld(&flow.In{Key: []byte("k")}, flow.StoreEnv{}, kept); b != nil || err != nil {
		t.Errorf("a deletion: %x, %v", b, err)
	}
}

// text is a value; "" is null.
func text(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func FuzzOlderHeldFormats(f *testing.F) {
	f.Add(byte(2), []byte{0, 0, 0, 0, 0, 0, 0, 5, 255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, format byte, value []byte) {
		r := &flow.In{Value: value, Headers: []flow.Header{{Key: "v", Value: []byte{format}}}}
		if format == 0 {
			r.Headers = nil
		}
		b, err := upgradeHeld(r, flow.StoreEnv{}, nil)
		if value == nil || err != nil {
			return
		}
		if _, err := ParseHeld(b); err != nil {
			t.Errorf("%x becomes %x, which is read with %v", value, b, err)
		}
	})
}
