package franz

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/cluster"
)

// TestWhoIsFenced: only a transaction that is open on our partitions costs its producer its epoch.
func TestWhoIsFenced(t *testing.T) {
	ours := []cluster.TP{{Topic: "changelog", Partition: 1}, {Topic: "changelog", Partition: 2}}
	for _, c := range []struct {
		name, state string
		code        int16
		topic       string
		partition   int32
		want        remedy
	}{
		{"open on ours", "Ongoing", 0, "changelog", 2, fenceIt},
		{"its next transaction, elsewhere", "Ongoing", 0, "changelog", 3, waitForIt},
		{"its next transaction, another topic", "Ongoing", 0, "output", 1, waitForIt},
		{"committed, markers to come", "PrepareCommit", 0, "changelog", 1, waitForIt},
		{"aborted, markers to come", "PrepareAbort", 0, "changelog", 1, waitForIt},
		{"complete meanwhile", "CompleteCommit", 0, "", 0, waitForIt},
		{"nothing open any more", "Empty", 0, "", 0, waitForIt},
		{"expired", "", kerr.TransactionalIDNotFound.Code, "", 0, leaveIt},
		{"coordinator away", "", kerr.NotCoordinator.Code, "", 0, refuseIt},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := kmsg.NewDescribeTransactionsResponseTransactionState()
			s.State, s.ErrorCode = c.state, c.code
			topic := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
			topic.Topic, topic.Partitions = c.topic, []int32{0, c.partition}
			s.Topics = append(s.Topics, topic)
			if got := whatToDo(s, ours); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
