package mem

import (
	"testing"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/clustertest"
)

func TestConformance(t *testing.T) {
	log := New()
	clustertest.Run(t, clustertest.Setup{
		Connect:    func(testing.TB) cluster.Cluster { return log.Connect() },
		Unreliable: func(testing.TB) (cluster.Cluster, clustertest.Fault) { return log.Connect(), fault{log} },
		Evict:      func(_ testing.TB, group, instance string) { log.Evict(group, instance) },
		Delete:     func(_ testing.TB, topic string) { log.Delete(topic) },
		Unique:     "t",
		Restart:    time.Minute,
	})
}

type fault struct{ log *Log }

func (f fault) LoseEnd(seen bool) {
	f.log.Faults.End = func(string, bool) EndFault {
		if seen {
			return LostAfter
		}
		return LostBefore
	}
}

func (f fault) Heal() { f.log.Faults = Faults{} }
