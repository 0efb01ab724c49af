package stream

import "testing"

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
