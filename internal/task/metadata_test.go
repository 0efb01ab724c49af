package task_test

import (
	"encoding/base64"
	"maps"
	"testing"

	"github.com/moldau/moldau/internal/task"
)

func TestMetadata(t *testing.T) {
	tests := []struct {
		name string
		text string
		want task.Metadata
	}{
		{"none", "", task.Metadata{PartitionTime: -1}},
		{"version 1", base64.StdEncoding.EncodeToString([]byte{1, 0, 0, 0, 0, 0, 0, 0, 9}), task.Metadata{PartitionTime: 9}},
		// As TopicPartitionMetadata of Kafka Streams 4 writes them.
		{"version 2, no numbers", "AgAAAAAAAAAJ", task.Metadata{PartitionTime: 9}},
		{"version 2", "AgAAAAAAAAAJAAAAAQAAAARrZXkxAAAAAAAAAAU=", task.Metadata{PartitionTime: 9, Numbers: map[string]int64{"key1": 5}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := task.ReadMetadata(test.text)
			if err != nil || got.PartitionTime != test.want.PartitionTime || !maps.Equal(got.Numbers, test.want.Numbers) {
				t.Errorf("got %v, %v", got, err)
			}
			if len(test.text) > 0 && test.name != "version 1" && got.String() != test.text {
				t.Errorf("written again: %s", got)
			}
		})
	}
	for _, bad := range []string{"?", "AA==", "AwAAAAAAAAAJ", "AgAAAAAAAAAJAAAAAQ==", "AgAAAAAAAAAJAAAAAf////9rZXkx"} {
		if m, err := task.ReadMetadata(bad); err == nil {
			t.Errorf("%q is read as %v", bad, m)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add("AgAAAAAAAAAJAAAAAQAAAARrZXkxAAAAAAAAAAU=")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := task.ReadMetadata(s)
		if err != nil || s == "" {
			return
		}
		again, err := task.ReadMetadata(m.String())
		if err != nil || again.PartitionTime != m.PartitionTime || !maps.Equal(again.Numbers, m.Numbers) {
			t.Errorf("%q reads as %v, and after writing as %v (%v)", s, m, again, err)
		}
	})
}
