package broker

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// mutations counts the partitions that a request creates and deletes against its client's controller_mutation_rate (KIP-599).
// Clients that know the error are refused what is above it; what older ones ask for is done, and they wait.
type mutations struct {
	r      *request
	strict bool
	until  time.Time // the client is to wait
}

func (r *request) mutations(strict bool) *mutations { return &mutations{r: r, strict: strict} }

// take is asked for each topic once nothing else speaks against it.
func (m *mutations) take(partitions int32) *refusal {
	b := m.r.conn.b
	if m.r.conn.listener == nil || !b.security.quotas.Any() {
		return nil
	}
	now := b.cfg.Now()
	wait, ok := b.security.quotas.Mutate(userOf(m.r.principal), m.r.ClientID, float64(partitions), m.strict, now)
	if wait > 0 {
		m.until = now.Add(wait)
	}
	if !ok {
		return refuse(kerr.ThrottlingQuotaExceeded, "controller_mutation_rate is used up for %v", wait)
	}
	return nil
}

// tell tells the client how long it is to wait, which it does.
func (m *mutations) tell(resp kmsg.Response) {
	if wait := m.until.Sub(m.r.conn.b.cfg.Now()); !m.until.IsZero() && wait > 0 {
		m.r.pause(resp, wait)
	}
}
