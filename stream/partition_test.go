package stream

import "testing"

// The values are those of Kafka's own test.
func TestMurmur2(t *testing.T) {
	for s, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(s))); got != want {
			t.Errorf("%q: got %d, want %d", s, got, want)
		}
	}
}

func FuzzChange(f *testing.F) {
	f.Add([]byte{'a', 'b', 2, 0})
	f.Add([]byte{2, 'a', 'b', 2})
	f.Add([]byte{2, 'a', 'b', 1, 5})
	s := changeSerde[[]byte]{asIs{}}
	f.Fuzz(func(t *testing.T, b []byte) {
		ch, err := s.Decode(b)
		if err != nil {
			return
		}
		again, err := s.Encode(nil, ch)
		if err != nil {
			t.Fatal(err)
		}
		back, err := s.Decode(again)
		if err != nil || string(back.Old) != string(ch.Old) || string(back.New) != string(ch.New) || back.Live != ch.Live || back.WasLive != ch.WasLive {
			t.Errorf("%x reads as %+v and after writing as %+v, %v", b, ch, back, err)
		}
	})
}

type asIs struct{}

func (asIs) Encode(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (asIs) Decode(b []byte) ([]byte, error)      { return b, nil }
