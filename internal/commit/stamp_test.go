package commit

import (
	"testing"

	"github.com/moldau/moldau/internal/task"
)

func TestStamp(t *testing.T) {
	was := task.Metadata{PartitionTime: 1700000000000, Numbers: map[string]int64{"hours": 5, sequenceName: 3}}
	got := stamp(was.String(), Sequence{9, -3})
	if s, err := ReadSequence(got); err != nil || s != (Sequence{9, -3}) {
		t.Errorf("sequence %v, %v", s, err)
	}
	m, err := task.ReadMetadata(got)
	if err != nil || m.PartitionTime != was.PartitionTime || m.Numbers["hours"] != 5 {
		t.Errorf("what the task had in it is %+v, %v", m, err)
	}
	if s, err := ReadSequence(stamp("", Sequence{1, 2})); err != nil || s != (Sequence{1, 2}) {
		t.Errorf("from nothing: %v, %v", s, err)
	}
	if s, err := ReadSequence("AQAAAAAAAAAF"); err != nil || s != (Sequence{}) {
		t.Errorf("Kafka Streams' first version: %v, %v", s, err)
	}
	if _, err := ReadSequence("nonsense"); err == nil {
		t.Error("nonsense was accepted")
	}
}
