package auth

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The quotas served, by Kafka's names.
const (
	ProducerByteRate       = "producer_byte_rate"       // bytes a second
	ConsumerByteRate       = "consumer_byte_rate"       // bytes a second
	RequestPercentage      = "request_percentage"       // of the time of one core
	ControllerMutationRate = "controller_mutation_rate" // partitions created and deleted a second
	ConnectionCreationRate = "connection_creation_rate" // connections a second, of an address
)

// quotasOf returns the quotas that addresses have, or those of users and clients, each with the largest value of those that
// are whole numbers; 0: any.
func quotasOf(address bool) map[string]float64 {
	if address {
		return map[string]float64{ConnectionCreationRate: math.MaxInt32}
	}
	return map[string]float64{ProducerByteRate: math.MaxInt64, ConsumerByteRate: math.MaxInt64, RequestPercentage: 0, ControllerMutationRate: 0}
}

// Entity is whom a quota is for: a user, a client or both, or a host, by address or by name. "" in a dimension: whoever; see
// Default.
type Entity struct {
	User   string `json:"user,omitempty"`
	Client string `json:"client,omitempty"`
	IP     string `json:"ip,omitempty"`
}

// Default, as a dimension of an entity, stands for all that have no quota of their own. No user and no client is called so.
const Default = "\x00default"

// Check says why an entity can have no quotas.
func (e Entity) Check() error {
	if e == (Entity{}) || e.IP != "" && (e.User != "" || e.Client != "") {
		return invalid("a quota is for a user, a client-id, or both, or for an ip")
	}
	return nil
}

// CheckQuota says why the entity cannot have a quota of a value.
func (e Entity) CheckQuota(name string, value float64) error {
	served := quotasOf(e.IP != "")
	most, ok := served[name]
	switch {
	case !ok:
		return invalid("quota %s is not served for it; served are %s", name, strings.Join(slices.Sorted(maps.Keys(served)), ", "))
	case !(value > 0) || math.IsInf(value, 0):
		return invalid("quota %s must be a number above 0", name)
	case most > 0 && (value > most || value != math.Trunc(value)):
		return invalid("quota %s must be a whole number of at most %.0f", name, most)
	}
	return nil
}

// Quotas is a set of quotas and what is used of them. It is safe for concurrent use.
type Quotas struct {
	mu      sync.Mutex
	limits  map[Entity]map[string]float64
	at      map[string]string  // the addresses of hosts that have quotas
	rates   map[string]float64 // of connections, by address
	meters  map[metered]*Meter
	buckets map[Entity]*bucket // of partitions that may be created and deleted
	some    atomic.Bool
}

// metered is what shares a quota: those that one rule made for many counts apart.
type metered struct {
	Entity
	quota string
}

// NewQuotas returns an empty set.
func NewQuotas() *Quotas {
	return &Quotas{limits: map[Entity]map[string]float64{}, at: map[string]string{}, rates: map[string]float64{}, meters: map[metered]*Meter{}, buckets: map[Entity]*bucket{}}
}

// Set replaces the quotas of an entity; none removes it.
func (q *Quotas) Set(e Entity, limits map[string]float64) { q.SetAt(e, e.IP, limits) }

// SetAt is Set for a host that has an address; "": the one it had before, if it had one. Where several hosts are one address, the
// lowest rate counts: Kafka lets the last one count that was set, until a restart, which knows no order.
func (q *Quotas) SetAt(e Entity, address string, limits map[string]float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(limits) == 0 {
		delete(q.limits, e)
		delete(q.at, e.IP)
	} else {
		q.limits[e] = limits
		if address != "" {
			q.at[e.IP] = address
		}
	}
	clear(q.rates)
	for host, address := range q.at {
		rate := q.limits[Entity{IP: host}][ConnectionCreationRate]
		if have, ok := q.rates[address]; !ok || rate < have {
			q.rates[address] = rate
		}
	}
	q.some.Store(len(q.limits) > 0)
	// Meters of what no longer has a limit would only take memory; those of others start again.
	clear(q.meters)
	clear(q.buckets)
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
		{Entity{User: user, Client: client}, Entity{User: user, Client: client}},
		{Entity{User: user, Client: Default}, Entity{User: user, Client: client}},
		{Entity{User: user}, Entity{User: user}},
		{Entity{User: Default, Client: client}, Entity{User: user, Client: client}},
		{Entity{User: Default, Client: Default}, Entity{User: user, Client: client}},
		{Entity{User: Default}, Entity{User: user}},
		{Entity{Client: client}, Entity{Client: client}},
		{Entity{Client: Default}, Entity{Client: client}},
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
	return keep(q.meters, metered{shared, quota}).Use(amount, limit, now)
}

// Connect counts a connection of an address and returns how long the address has to wait with it; then it is not counted.
func (q *Quotas) Connect(ip string, now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	limit, ok := q.rates[ip]
	if !ok {
		if limit, ok = q.limits[Entity{IP: Default}][ConnectionCreationRate]; !ok {
			return 0
		}
	}
	m := keep(q.meters, metered{Entity{IP: ip}, ConnectionCreationRate})
	wait := m.Use(1, limit, now)
	if wait > 0 {
		m.Use(-1, limit, now)
	}
	return wait
}

// Mutate counts partitions that a client creates or deletes, and returns how long it is to wait before it does so again. As
// Kafka it takes them whole, however many, as long as there is something left of what the rate gives in eleven seconds; when
// there is nothing, strict refuses them and does not count them.
func (q *Quotas) Mutate(user, client string, partitions float64, strict bool, now time.Time) (wait time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	limit, shared, ok := q.find(user, client, ControllerMutationRate)
	if !ok {
		return 0, true
	}
	return keep(q.buckets, shared).take(partitions, limit, strict, now)
}

// bucket holds what a rate has given and nobody has taken yet. Below zero somebody took more.
type bucket struct {
	tokens float64
	at     time.Time // zero: it is full
}

func (b *bucket) take(amount, rate float64, strict bool, now time.Time) (wait time.Duration, ok bool) {
	full := rate * samples * window.Seconds()
	if b.at.IsZero() {
		b.tokens = full
	} else {
		b.tokens = min(full, b.tokens+rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	ok = !strict || b.tokens >= 0
	if ok {
		b.tokens -= amount
	}
	if b.tokens < 0 && !(strict && ok) {
		wait = time.Duration(-b.tokens / rate * float64(time.Second)).Round(time.Millisecond)
	}
	return wait, ok
}

// keep returns what is kept under a key, and begins it.
func keep[K comparable, V any](m map[K]*V, k K) *V {
	v := m[k]
	if v == nil {
		if len(m) >= maxMeters {
			clear(m)
		}
		v = new(V)
		m[k] = v
	}
	return v
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

// Meter counts over the last seconds.
type Meter struct {
	counts [samples]float64
	second int64
}

// Use counts amount and returns how long whoever used it is to wait for a limit of so much a second to be kept.
func (m *Meter) Use(amount, limit float64, now time.Time) time.Duration {
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
