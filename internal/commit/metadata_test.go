package commit

import (
	"reflect"
	"testing"
)

func TestMetadata(t *testing.T) {
	full := Metadata{Time: 1700000000000, Marks: []Mark{{"hours", 5}, {"days", -1}}, Sequence: Sequence{9, -3}}
	for _, tt := range []struct {
		name, in string
		want     Metadata
	}{
		{"none", "", Metadata{Time: -1}},
		{"Kafka Streams 1", "AQAAAAAAAAAF", Metadata{Time: 5}},
		{"Kafka Streams 2, no entries", "AgAAAAAAAAAFAAAAAA==", Metadata{Time: 5}},
		{"ours", full.Encode(), full},
		{"ours without a sequence", Metadata{Time: 3}.Encode(), Metadata{Time: 3}},
	} {
		got, err := Decode(tt.in)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
	for _, bad := range []string{"x", "AQ==", "AwAAAAAAAAAF", "AgAAAAAAAAAF", "AgAAAAAAAAAFAAAAAQ==", "AgAAAAAAAAAFAAAAAf////8AAAAA"} {
		if _, err := Decode(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("")
	f.Add("AgAAAAAAAAAFAAAAAA==")
	f.Add(Metadata{Time: 1, Marks: []Mark{{"a", 2}}, Sequence: Sequence{3, 4}}.Encode())
	f.Fuzz(func(t *testing.T, s string) {
		m, err := Decode(s)
		if err != nil {
			return
		}
		if m.Sequence.Number == 0 {
			m.Sequence.Writer = 0 // not written without a number
		}
		again, err := Decode(m.Encode())
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}
