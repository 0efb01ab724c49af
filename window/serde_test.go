package window_test

import (
	"encoding/hex"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/serde/avro"
	"github.com/moldau/moldau/window"
)

func TestKeyFormats(t *testing.T) {
	for _, c := range []struct {
		name string
		s    serde.Serde[window.Key[string]]
		span window.Span
		want string // after "ab"
	}{
		{"time", window.TimeKey(serde.String, 10*ms), window.Millis(5, 15), "0000000000000005"},
		{"unlimited", window.TimeKey(serde.String, window.Forever), window.Millis(5, math.MaxInt64), "0000000000000005"},
		{"session, end first", window.SessionKey(serde.String), window.Millis(5, 15), "000000000000000f" + "0000000000000005"},
	} {
		k := window.Key[string]{Key: "ab", Span: c.span}
		b, err := c.s.Encode([]byte{0xaa}, k)
		if err != nil || hex.EncodeToString(b) != "aa6162"+c.want {
			t.Errorf("%s: %v is written as %x after aa (%v), want 6162%s", c.name, k, b, err, c.want)
		}
		if back, err := c.s.Decode(b[1:]); back != k || err != nil {
			t.Errorf("%s: %v came back as %v (%v)", c.name, k, back, err)
		}
	}
}

func TestKeyErrors(t *testing.T) {
	hour := window.TimeKey(serde.Int32, time.Hour)
	session := window.SessionKey(serde.Int32)
	failed := func(s serde.Serde[window.Key[int32]], b string) error {
		_, err := s.Decode([]byte(b))
		return err
	}
	eight := "\x00\x00\x00\x00\x00\x00\x00\x08"
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"short", failed(hour, "abc"), `a windowed key ends in a start of 8 bytes, got 3 bytes: "abc"`},
		{"inner", failed(hour, "abc"+eight), `an int32 takes 4 bytes, got 3: "abc"`},
		{"start", failed(hour, "abcd\xff\xff\xff\xff\xff\xff\xff\xff"), "starts at -1 ms"},
		{"session, short", failed(session, "abcd"+eight), "an end and a start of 8 bytes each, got 12"},
		{"session, inner", failed(session, eight+eight), "an int32 takes 4 bytes, got 0"},
		{"session, reversed", failed(session, "abcd\x00\x00\x00\x00\x00\x00\x00\x01"+eight), "from 8 to 1 ms"},
		{"size", validated(window.TimeKey(serde.String, 0)), "size 0s; it must be positive"},
		{"inner of time", validated(window.TimeKey(avro.New[int](`"imt"`), time.Hour)), "does not parse"},
		{"inner of session", validated(window.SessionKey(avro.New[int](`"imt"`))), "does not parse"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, c.err, c.want)
		}
	}
	if err := validated(hour); err != nil {
		t.Error(err)
	}
}

func validated(s any) error { return s.(serde.Validator).Validate() }

// FuzzKey looks for bytes that are taken for a windowed key and are not written back alike.
func FuzzKey(f *testing.F) {
	f.Add([]byte("key\x00\x00\x00\x00\x00\x00\x00\x05"))
	f.Add([]byte("key\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x04"))
	f.Add([]byte("\x7f\xff\xff\xff\xff\xff\xff\xff"))
	serdes := []serde.Serde[window.Key[string]]{
		window.TimeKey(serde.String, time.Hour),
		window.TimeKey(serde.String, window.Forever),
		window.SessionKey(serde.String),
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range serdes {
			k, err := s.Decode(b)
			if err != nil {
				continue
			}
			if k.Start.After(k.End) {
				t.Errorf("%x was read as %v, which ends before it starts", b, k)
			}
			if again, err := s.Encode(nil, k); err != nil || string(again) != string(b) {
				t.Errorf("%x was read as %v, which is written as %x (%v)", b, k, again, err)
			}
		}
	})
}
