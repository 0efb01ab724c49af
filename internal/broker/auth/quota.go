package auth

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// The quotas served, by Kafka's names.
const (
	ProducerByteRate  = "producer_byte_rate" // bytes a second
	ConsumerByteRate  = "consumer_byte_rate" // bytes a second
	RequestPercentage = "request_percentage" // of the time of one core
)

// Entity is whom a quota is for. "" in a dimension: whoever; see Default.
type Entity struct {
	User   string `json:"user,omitempty"`
	Client string `json:"client,omitempty"`
}

// Default, as a dimension of an entity, stands for all that have no quota of their own. No user and no client is called so.
const Default = "\x00default"

// Check says why an entity can have no quotas.
func (e Entity) Check() error {
	if e == (Entity{}) {
		return invalid("a quota is for a user, a client-id, or both")
	}
	return nil
}

// CheckQuota says why a quota cannot have a value.
func CheckQuota(name string, value float64) error {
	switch name {
	case ProducerByteRate, ConsumerByteRate, RequestPercentage:
	default:
		return invalid("quota %s is not served; served are %s, %s and %s", name, ProducerByteRate, ConsumerByteRate, RequestPercentage)
	}
	if !(value > 0) || math.IsInf(value, 0) {
		return invalid("quota %s must be a number above 0", name)
	}
	return nil
}

// Quotas is a set of quotas and what is used of them. It is safe for concurrent use.
type Quotas struct {
	mu     sync.Mutex
	limits map[Entity]map[string]float64
	meters map[metered]*meter
	some   atomic.Bool
}

// metered is what shares a quota: those that one rule made for many counts apart.
type metered struct {
	Entity
	quota string
}

// NewQuotas returns an empty set.
func NewQuotas() *Quotas {
	return &Quotas{limits: map[Entity]map[string]float64{}, meters: map[metered]*meter{}}
}

// Set replaces the quotas of an entity; none removes it.
func (q *Quotas) Set(e Entity, limits map[string]float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(limits) == 0 {
		delete(q.limits, e)
	} else {
		q.limits[e] = limits
	}
	q.some.Store(len(q.limits) > 0)
	// Meters of what no longer has a limit would only take memory; those of others start again.
	clear(q.meters)
}

// Any says whether there are quotas at all.
func (q *Quotas) Any() bool { return q.some.Load() }

// Get returns the quotas of an entity.
func (q *Quotas) Get(e Entity) map[string]float64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limits[e]
}

// All returns all quotas.
func (q *Quotas) All() map[Entity]map[string]float64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := make(map[Entity]map[string]float64, len(q.limits))
	for e, l := range q.limits {
		all[e] = l
	}
	return all
}

// find returns the most specific limit of a user and a client, and what shares it.
func (q *Quotas) find(user, client, quota string) (float64, Entity, bool) {
	for _, c := range [...]struct{ rule, shared Entity }{
		{Entity{user, client}, Entity{user, client}},
		{Entity{user, Default}, Entity{user, client}},
		{Entity{user, ""}, Entity{user, ""}},
		{Entity{Default, client}, Entity{user, client}},
		{Entity{Default, Default}, Entity{user, client}},
		{Entity{Default, ""}, Entity{user, ""}},
		{Entity{"", client}, Entity{"", client}},
		{Entity{"", Default}, Entity{"", client}},
	} {
		if limit, ok := q.limits[c.rule][quota]; ok {
			return limit, c.shared, true
		}
	}
	return 0, Entity{}, false
}

// Use counts what a client has used and returns how long it is to be kept waiting for it.
func (q *Quotas) Use(user, client, quota string, amount float64, now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.limits) == 0 {
		return 0
	}
	limit, shared, ok := q.find(user, client, quota)
	if !ok {
		return 0
	}
	k := metered{shared, quota}
	m := q.meters[k]
	if m == nil {
		if len(q.meters) >= maxMeters {
			clear(q.meters)
		}
		m = &meter{}
		q.meters[k] = m
	}
	return m.use(amount, limit, now)
}

// maxMeters bounds what clients that choose their own names can make the broker remember.
const maxMeters = 10_000

const (
	// samples windows of one second each are counted (quota.window.num, quota.window.size.seconds).
	samples = 11
	window  = time.Second
	// maxThrottle bounds one pause, so that a client is not lost to its own timeouts.
	maxThrottle = 30 * time.Second
)

// meter counts over the last seconds.
type meter struct {
	counts [samples]float64
	second int64
}

func (m *meter) use(amount, limit float64, now time.Time) time.Duration {
	second := now.Unix()
	if second-m.second >= samples || second < m.second {
		m.counts = [samples]float64{}
		m.second = second
	}
	for ; m.second < second; m.second++ {
		m.counts[(m.second+1)%samples] = 0
	}
	m.counts[second%samples] += amount
	total := 0.0
	for _, c := range m.counts {
		total += c
	}
	// As Kafka: over the full windows that have passed, and the part of the present one.
	span := float64(samples-1) + float64(now.Nanosecond())/1e9
	if total <= limit*span {
		return 0
	}
	wait := time.Duration((total/limit - span) * float64(time.Second))
	return min(max(wait, time.Millisecond), maxThrottle)
}
