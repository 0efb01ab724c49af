package serde_test

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/quick"

	"github.com/google/uuid"

	"github.com/moldau/moldau/serde"
)

// TestFormats holds bytes as Apache Kafka's Java serializers write them.
func TestFormats(t *testing.T) {
	format(t, "bytes", serde.Bytes, []byte{0, 255}, "00ff")
	format(t, "bytes, none", serde.Bytes, []byte{}, "")
	format(t, "string", serde.String, "Vltava \u0159", "566c7461766120c599")
	format(t, "string, empty", serde.String, "", "")
	format(t, "int32", serde.Int32, -2, "fffffffe")
	format(t, "int32, greatest", serde.Int32, math.MaxInt32, "7fffffff")
	format(t, "int64", serde.Int64, 1, "0000000000000001")
	format(t, "int64, least", serde.Int64, math.MinInt64, "8000000000000000")
	format(t, "float64", serde.Float64, 1.5, "3ff8000000000000")
	format(t, "float64, negative zero", serde.Float64, math.Copysign(0, -1), "8000000000000000")
	format(t, "bool, false", serde.Bool, false, "00")
	format(t, "bool, true", serde.Bool, true, "01")
	format(t, "uuid", serde.UUID, uuid.MustParse("01234567-89AB-cdef-0123-456789abcdef"),
		hex.EncodeToString([]byte("01234567-89ab-cdef-0123-456789abcdef")))
	format(t, "json", serde.JSON[map[string]int](), map[string]int{"b": 2, "a": 1},
		hex.EncodeToString([]byte(`{"a":1,"b":2}`)))
}

// format wants v encoded as the bytes in hex, appended to what is there, and decoded again from them.
func format[T any](t *testing.T, name string, s serde.Serde[T], v T, want string) {
	t.Run(name, func(t *testing.T) {
		t.Helper()
		got, err := s.Encode([]byte{0xaa}, v)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got) != "aa"+want {
			t.Fatalf("%v is written as %x after aa, want %s", v, got, want)
		}
		back, err := s.Decode(got[1:])
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.Encode(nil, back)
		if err != nil || hex.EncodeToString(again) != want {
			t.Fatalf("%x is read as %v, which is written as %x (%v)", got[1:], back, again, err)
		}
	})
}

func TestRoundTrip(t *testing.T) {
	roundTrip(t, "int32", serde.Int32)
	roundTrip(t, "int64", serde.Int64)
	roundTrip(t, "float64", serde.Float64)
	roundTrip(t, "bool", serde.Bool)
	roundTrip(t, "string", serde.String)
	roundTrip(t, "uuid", serde.UUID)
	roundTrip(t, "json", serde.JSON[float64]())
}

func roundTrip[T comparable](t *testing.T, name string, s serde.Serde[T]) {
	t.Run(name, func(t *testing.T) {
		same := func(v T, before []byte) bool {
			b, err := s.Encode(before[:len(before):len(before)], v)
			if err != nil {
				return false
			}
			back, err := s.Decode(b[len(before):])
			return err == nil && back == v && string(b[:len(before)]) == string(before)
		}
		if err := quick.Check(same, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestErrorsSayWhatWasExpected(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"int32", decoded(serde.Int32, "abcde"), `an int32 takes 4 bytes, got 5: "abcde"`},
		{"int64", decoded(serde.Int64, "42"), `an int64 takes 8 bytes, got 2: "42"`},
		{"int64, long", decoded(serde.Int64, "a text of some length"), `got 21: "a text of some l"`},
		{"float64", decoded(serde.Float64, ""), `a float64 takes 8 bytes, got 0`},
		{"bool, length", decoded(serde.Bool, "true"), `a bool takes 1 bytes, got 4: "true"`},
		{"bool, value", decoded(serde.Bool, "\x02"), `a bool is the byte 0 or 1, got 0x02`},
		{"uuid, length", decoded(serde.UUID, "0123"), `the text of a UUID takes 36 bytes, got 4`},
		{"uuid, text", decoded(serde.UUID, strings.Repeat("x", 36)), `is not the text of a UUID`},
		{"json", decoded(serde.JSON[int](), `"one"`), `JSON as int: `},
		{"json, more than one", decoded(serde.JSON[int](), `1 2`), `JSON as int: `},
		{"json, encode", encoded(serde.JSON[func()](), func() {}), `func() as JSON: `},
		{"null", encoded(serde.Null(serde.Int64), nil), `nil is Kafka's null and has no bytes`},
		{"null, within", decoded(serde.Null(serde.Int64), "42"), `an int64 takes 8 bytes`},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, c.err, c.want)
		}
	}
}

func decoded[T any](s serde.Serde[T], b string) error {
	_, err := s.Decode([]byte(b))
	return err
}

func encoded[T any](s serde.Serde[T], v T) error {
	_, err := s.Encode(nil, v)
	return err
}

func TestBytesAreNotShared(t *testing.T) {
	b := []byte("moldau")
	v, _ := serde.Bytes.Decode(b)
	s, _ := serde.String.Decode(b)
	copy(b, "xxxxxx")
	if string(v) != "moldau" || s != "moldau" {
		t.Errorf("decoded values changed with their buffer: %s, %s", v, s)
	}
}

func TestNullAndEmptyDiffer(t *testing.T) {
	s := serde.Null(serde.String)
	if v, err := s.Decode(nil); v != nil || err != nil {
		t.Errorf("null is read as %v, %v", v, err)
	}
	if v, err := s.Decode([]byte{}); v == nil || *v != "" || err != nil {
		t.Errorf("the empty string is read as %v, %v", v, err)
	}
	if v, _ := serde.Bytes.Decode(nil); v != nil {
		t.Errorf("null is read as %#v", v)
	}
	if v, _ := serde.Bytes.Decode([]byte{}); v == nil {
		t.Error("no bytes are read as null")
	}
}

func TestBasicSerdesDoNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 64)
	id := uuid.New()
	n := testing.AllocsPerRun(100, func() {
		b, _ := serde.String.Encode(dst, "moldau")
		b, _ = serde.Int64.Encode(b, 7)
		b, _ = serde.UUID.Encode(b, id)
		_, _ = serde.Int64.Decode(b[6:14])
		_, _ = serde.UUID.Decode(b[14:])
	})
	if n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// FuzzDecode looks for bytes that a serde takes but would not have written; only JSON has more than one spelling.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("00000000-0000-0000-0000-000000000000"))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		exact(t, serde.Int32, b)
		exact(t, serde.Int64, b)
		exact(t, serde.Float64, b)
		exact(t, serde.Bool, b)
		exact(t, serde.String, b)
		exact(t, serde.Bytes, b)
		exact(t, serde.UUID, []byte(strings.ToLower(string(b))))
		if v, err := serde.JSON[any]().Decode(b); err == nil {
			if _, err := serde.JSON[any]().Encode(nil, v); err != nil {
				t.Errorf("%q was read as %v, which cannot be written: %v", b, v, err)
			}
		}
	})
}

func exact[T any](t *testing.T, s serde.Serde[T], b []byte) {
	t.Helper()
	v, err := s.Decode(b)
	if err != nil {
		return
	}
	if again, err := s.Encode(nil, v); err != nil || string(again) != string(b) {
		t.Errorf("%T: %q was read as %v, which is written as %q (%v)", s, b, v, again, err)
	}
}

// TestJSONIsEncodingJSON holds the options to their word where the two versions of encoding/json differ.
func TestJSONIsEncodingJSON(t *testing.T) {
	type inner struct {
		N int `json:"n,omitempty"`
	}
	type value struct {
		Markup string         `json:"markup"`
		Slice  []int          `json:"slice"`
		Map    map[string]any `json:"map"`
		Bytes  [3]byte        `json:"bytes"`
		Omit   bool           `json:"omit,omitempty"`
		Inner  *inner         `json:"inner"`
		Any    any
	}
	for _, v := range []value{
		{},
		{Markup: "<a&b>\u2028", Slice: []int{}, Map: map[string]any{"z": 1.5, "a": nil}, Inner: &inner{}, Any: []any{"x", 1e21}},
		{Markup: "not \xff UTF-8", Inner: &inner{7}},
	} {
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := serde.JSON[value]().Encode([]byte("before "), v)
		if err != nil || string(got) != "before "+string(want) {
			t.Errorf("got %s (%v), want %s", got, err, want)
		}
		var back value
		if err := json.Unmarshal(want, &back); err != nil {
			t.Fatal(err)
		}
		if again, err := serde.JSON[value]().Decode(want); err != nil || !reflect.DeepEqual(again, back) {
			t.Errorf("%s is read as %+v (%v), want %+v", want, again, err, back)
		}
	}
	if v, err := serde.JSON[value]().Decode([]byte(`{"MARKUP":"any case","unknown":1,"omit":true,"omit":false}`)); err != nil || v.Markup != "any case" || v.Omit {
		t.Errorf("read as %+v (%v)", v, err)
	}
}
