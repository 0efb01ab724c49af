package protobuf_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/serde/protobuf"
)

func TestBytes(t *testing.T) {
	s := protobuf.New[*durationpb.Duration]()
	v := &durationpb.Duration{Seconds: 300, Nanos: 1}
	b, err := s.Encode([]byte{0xaa}, v)
	if want := "aa" + "08ac02" + "1001"; err != nil || hex.EncodeToString(b) != want {
		t.Fatalf("%v is written as %x (%v), want %s", v, b, err, want)
	}
	back, err := s.Decode(b[1:])
	if err != nil || !proto.Equal(back, v) {
		t.Fatalf("%x is read as %v (%v)", b[1:], back, err)
	}
}

func TestEqualMessagesGiveEqualBytes(t *testing.T) {
	s := protobuf.New[*structpb.Struct]()
	v, err := structpb.NewStruct(map[string]any{"a": 1.0, "b": "two", "c": true, "d": nil, "e": 5.0})
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Encode(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if again, err := s.Encode(nil, v); err != nil || string(again) != string(first) {
			t.Fatalf("written as %x, then as %x (%v)", first, again, err)
		}
	}
}

func TestErrors(t *testing.T) {
	_, broken := protobuf.New[*durationpb.Duration]().Decode([]byte{0x08})
	_, untyped := protobuf.New[proto.Message]().Decode(nil)
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"truncated", broken, "decoding *durationpb.Duration"},
		{"interface", untyped, "not an interface"},
		{"validate", protobuf.New[proto.Message]().(serde.Validator).Validate(), "not an interface"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, c.err, c.want)
		}
	}
	if err := protobuf.New[*durationpb.Duration]().(serde.Validator).Validate(); err != nil {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x08, 0xac, 0x02, 0x10, 0x01})
	s := protobuf.New[*structpb.Value]()
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
