package group

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func FuzzEmbedded(f *testing.F) {
	f.Add(subscribe([]string{"t", "u"}, Part{topicID("t"), 3}))
	f.Add(appendAssignment(nil, 3, []TopicPartition{{"t", 1}, {"t", 2}, {"u", 0}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := readSubscription(b); err == nil {
			// What kmsg can read it reads alike.
			var m kmsg.ConsumerMemberMetadata
			if len(b) > 2 && s.version <= 3 && m.ReadFrom(b) == nil && !slices.Equal(m.Topics, s.topics) {
				t.Errorf("topics %q, kmsg has %q", s.topics, m.Topics)
			}
		}
		tps, user, err := readAssignment(b)
		if err != nil || len(b) == 0 {
			return
		}
		again := appendAssignment(nil, 0, tps)
		if got, _, err := readAssignment(again); err != nil || !slices.Equal(got, tps) {
			t.Errorf("%v written and read is %v, %v (user data %x)", tps, got, err, user)
		}
	})
}
