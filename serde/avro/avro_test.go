package avro_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/serde/avro"
)

const schema = `{"type":"record","name":"Flight","fields":[
	{"name":"origin","type":"string"},
	{"name":"delay","type":["null","int"],"default":null}]}`

type flight struct {
	Origin string `avro:"origin"`
	Delay  *int   `avro:"delay"`
}

func TestBytes(t *testing.T) {
	s := avro.New[flight](schema)
	late := -3
	for _, c := range []struct {
		v    flight
		want string // by the Avro specification: length 3 as zigzag, "ORD", branch of the union, the int as zigzag
	}{
		{flight{"ORD", nil}, "06" + "4f5244" + "00"},
		{flight{"ORD", &late}, "06" + "4f5244" + "02" + "05"},
	} {
		b, err := s.Encode([]byte{0xaa}, c.v)
		if err != nil || hex.EncodeToString(b) != "aa"+c.want {
			t.Errorf("%v is written as %x after aa (%v), want %s", c.v, b, err, c.want)
			continue
		}
		back, err := s.Decode(b[1:])
		if err != nil || back.Origin != c.v.Origin || (back.Delay == nil) != (c.v.Delay == nil) {
			t.Errorf("%x is read as %v (%v)", b[1:], back, err)
		}
	}
}

func TestOneNameTwoSchemas(t *testing.T) {
	a := avro.New[int64](`{"type":"fixed","name":"Same","size":8}`)
	b := avro.New[flight](strings.Replace(schema, `"Flight"`, `"Same"`, 1))
	for _, s := range []any{a, b} {
		if err := s.(serde.Validator).Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestErrors(t *testing.T) {
	broken := avro.New[flight](`{"type":"recrod"}`)
	_, encoding := broken.Encode(nil, flight{})
	_, decoding := broken.Decode([]byte{0})
	_, short := avro.New[flight](schema).Decode([]byte{6, 'O'})
	_, over := avro.New[flight](schema).Decode([]byte{6, 'O', 'R', 'D', 0, 9})
	_, huge := avro.New[[]struct{}](`{"type":"array","items":"null"}`).Decode([]byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	_, mismatch := avro.New[int](schema).Encode(nil, 7)
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"validate", broken.(serde.Validator).Validate(), "the schema of avro_test.flight does not parse"},
		{"encode", encoding, "does not parse"},
		{"decode", decoding, "does not parse"},
		{"truncated", short, "decoding avro_test.flight"},
		{"left over", over, "bytes are left over"},
		{"huge", huge, "MaxSliceAllocSize"},
		{"another type", mismatch, "encoding int"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, c.err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{6, 'O', 'R', 'D', 0})
	f.Add([]byte{6, 'O', 'R', 'D', 2, 5})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	s := avro.New[flight](schema)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := s.Decode(b)
		if err != nil {
			return
		}
		if _, err := s.Encode(nil, v); err != nil {
			t.Errorf("%x was read as %v, which cannot be written: %v", b, v, err)
		}
	})
}
