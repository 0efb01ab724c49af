package broker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
	"github.com/moldau/moldau/internal/broker/log"
)

// The dimensions of an entity, by Kafka's names.
const (
	quotaUser   = "user"
	quotaClient = "client-id"
	quotaIP     = "ip"
)

// throttle counts what a request has used and returns how long its client is to wait, and tells it so. The answer is sent
// at once; it is the next request that waits.
func (r *request) throttle(resp kmsg.Response, quota string, amount float64) time.Duration {
	if r.conn.listener == nil || !r.conn.b.security.quotas.Any() {
		return 0
	}
	b := r.conn.b
	wait := b.security.quotas.Use(userOf(r.principal), r.ClientID, quota, amount, b.cfg.Now())
	if wait > 0 {
		r.pause(resp, wait)
	}
	return wait
}

// pause has the client wait before its next request is read, and says so in the answer.
func (r *request) pause(resp kmsg.Response, wait time.Duration) {
	r.conn.b.metrics.throttled.Add(1)
	r.conn.mute(wait)
	if t, ok := resp.(kmsg.ThrottleResponse); ok {
		if ms, _ := t.Throttle(); ms < int32(wait.Milliseconds()) {
			resp.(kmsg.SetThrottleResponse).SetThrottle(int32(wait.Milliseconds()))
		}
	}
}

// userOf returns a principal's name.
func userOf(principal string) string { return principal[len("User:"):] }

func entityOf(types []string, names []*string) (auth.Entity, error) {
	var e auth.Entity
	for i, typ := range types {
		name := auth.Default
		if names[i] != nil {
			name = *names[i]
		}
		switch {
		case name == "":
			return e, fmt.Errorf("an empty %s has no quotas", typ)
		case typ == quotaUser && e.User == "":
			e.User = name
		case typ == quotaClient && e.Client == "":
			e.Client = name
		case typ == quotaIP && e.IP == "":
			e.IP = name
		default:
			return e, fmt.Errorf("%q is no entity of quotas", typ)
		}
	}
	return e, e.Check()
}

func (b *Broker) alterClientQuotas(r *request, q *kmsg.AlterClientQuotasRequest) reply {
	resp := response[*kmsg.AlterClientQuotasResponse](q)
	s := b.security
	allowed := r.mayCluster(kmsg.ACLOperationAlterConfigs)
	ctx, cancel := context.WithTimeout(r.conn.ctx, resolveTimeout)
	defer cancel()
	for _, qe := range q.Entries {
		re := kmsg.NewAlterClientQuotasResponseEntry()
		var types []string
		var names []*string
		for _, d := range qe.Entity {
			types, names = append(types, d.Type), append(names, d.Name)
			re.Entity = append(re.Entity, kmsg.AlterClientQuotasResponseEntryEntity{Type: d.Type, Name: d.Name})
		}
		var no *refusal
		if !allowed {
			no = refuse(kerr.ClusterAuthorizationFailed, "%s may not alter the cluster's quotas", r.principal)
		} else if e, err := entityOf(types, names); err != nil {
			no = refuse(kerr.InvalidRequest, "%v; each is given once", err)
		} else if address, err := addressOf(ctx, e); err != nil && s.quotas.Get(e) == nil {
			no = refuse(kerr.InvalidRequest, "%v", err)
		} else {
			// Quotas of a host that has no address any more may be changed and taken away. In Kafka they may not.
			no = s.alterQuota(e, address, qe.Ops, q.ValidateOnly)
		}
		if no != nil {
			re.ErrorCode, re.ErrorMessage = no.err.Code, &no.msg
		}
		resp.Entries = append(resp.Entries, re)
	}
	return answer(resp)
}

// addressOf returns the address of the host that an entity is, "" for others.
func addressOf(ctx context.Context, e auth.Entity) (string, error) {
	if e.IP == "" || e.IP == auth.Default {
		return "", nil
	}
	return resolve(ctx, e.IP)
}

func (s *security) alterQuota(e auth.Entity, address string, ops []kmsg.AlterClientQuotasRequestEntryOp, validateOnly bool) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := maps.Clone(s.quotas.Get(e))
	if limits == nil {
		limits = map[string]float64{}
	}
	seen := map[string]bool{}
	for _, op := range ops {
		if seen[op.Key] {
			return refuse(kerr.InvalidRequest, "quota %s is altered twice", op.Key)
		}
		seen[op.Key] = true
		if op.Remove {
			delete(limits, op.Key)
			continue
		}
		if err := e.CheckQuota(op.Key, op.Value); err != nil {
			return refuse(kerr.InvalidRequest, "%v", err)
		}
		limits[op.Key] = op.Value
	}
	if validateOnly {
		return nil
	}
	put := log.Put{Kind: kindQuota, Key: quotaKey(e)}
	if len(limits) > 0 {
		put.Value = encode(quotaRecord{e, limits})
	}
	if no := s.store([]log.Put{put}); no != nil {
		return no
	}
	s.quotas.SetAt(e, address, limits)
	return nil
}

func (b *Broker) describeClientQuotas(r *request, q *kmsg.DescribeClientQuotasRequest) reply {
	resp := response[*kmsg.DescribeClientQuotasResponse](q)
	fail := func(err *kerr.Error, msg string) reply {
		resp.ErrorCode, resp.ErrorMessage, resp.Entries = err.Code, &msg, nil
		return answer(resp)
	}
	if !r.mayCluster(kmsg.ACLOperationDescribeConfigs) {
		return fail(kerr.ClusterAuthorizationFailed, "the cluster's quotas are not for "+r.principal)
	}
	// Java's client cannot read null here, though the protocol allows it.
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{}
	var dimensions []string
	for _, c := range q.Components {
		if c.EntityType != quotaUser && c.EntityType != quotaClient && c.EntityType != quotaIP || slices.Contains(dimensions, c.EntityType) {
			return fail(kerr.InvalidRequest, "quotas are for "+quotaUser+", "+quotaClient+" and "+quotaIP+", each asked for once")
		}
		dimensions = append(dimensions, c.EntityType)
	}
	if len(dimensions) > 1 && slices.Contains(dimensions, quotaIP) {
		return fail(kerr.InvalidRequest, "quotas of an "+quotaIP+" are for nobody else at the same time")
	}
	// has says whether a dimension of an entity is what a component asks for.
	has := func(name string, c kmsg.DescribeClientQuotasRequestComponent) bool {
		switch c.MatchType {
		case kmsg.QuotasMatchTypeExact:
			return c.Match != nil && name == *c.Match && name != ""
		case kmsg.QuotasMatchTypeDefault:
			return name == auth.Default
		}
		return name != ""
	}
	all := b.security.quotas.All()
	for _, e := range slices.SortedFunc(maps.Keys(all), func(a, b auth.Entity) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Client, b.Client), cmp.Compare(a.IP, b.IP))
	}) {
		asked := map[string]bool{}
		matches := true
		for _, c := range q.Components {
			asked[c.EntityType] = true
			switch c.EntityType {
			case quotaUser:
				matches = matches && has(e.User, c)
			case quotaClient:
				matches = matches && has(e.Client, c)
			case quotaIP:
				matches = matches && has(e.IP, c)
			}
		}
		if q.Strict && len(q.Components) > 0 {
			matches = matches && (e.User == "" || asked[quotaUser]) && (e.Client == "" || asked[quotaClient]) && (e.IP == "" || asked[quotaIP])
		}
		if !matches {
			continue
		}
		re := kmsg.NewDescribeClientQuotasResponseEntry()
		for _, d := range [...]struct{ typ, name string }{{quotaUser, e.User}, {quotaClient, e.Client}, {quotaIP, e.IP}} {
			if d.name == "" {
				continue
			}
			re.Entity = append(re.Entity, kmsg.DescribeClientQuotasResponseEntryEntity{Type: d.typ, Name: &d.name})
			if d.name == auth.Default {
				re.Entity[len(re.Entity)-1].Name = nil
			}
		}
		for _, key := range slices.Sorted(maps.Keys(all[e])) {
			re.Values = append(re.Values, kmsg.DescribeClientQuotasResponseEntryValue{Key: key, Value: all[e][key]})
		}
		resp.Entries = append(resp.Entries, re)
	}
	return answer(resp)
}
