package broker

import (
	"cmp"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
	"github.com/moldau/moldau/internal/broker/log"
)

// mayACLs says why a client may not see or change rules.
func (b *Broker) mayACLs(r *request, op kmsg.ACLOperation) *refusal {
	switch {
	case !b.security.enforce:
		return &refusal{kerr.SecurityDisabled, "the broker enforces no ACLs: it was started without them"}
	case !r.mayCluster(op):
		return refuse(kerr.ClusterAuthorizationFailed, "%s may not do this with the cluster's ACLs", r.principal)
	}
	return nil
}

// sortACLs puts rules into an order that answers show.
func sortACLs(acls []auth.ACL) {
	slices.SortFunc(acls, func(a, b auth.ACL) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Pattern, b.Pattern), cmp.Compare(a.Name, b.Name), cmp.Compare(aclKey(a), aclKey(b)))
	})
}

// patternOf reads a pattern type, which version 0 does not have.
func patternOf(version int16, p kmsg.ACLResourcePatternType) kmsg.ACLResourcePatternType {
	if version == 0 {
		return kmsg.ACLResourcePatternTypeLiteral
	}
	return p
}

func (b *Broker) describeACLs(r *request, q *kmsg.DescribeACLsRequest) reply {
	resp := response[*kmsg.DescribeACLsResponse](q)
	no := b.mayACLs(r, kmsg.ACLOperationDescribe)
	f := auth.Filter{Resource: q.ResourceType, Name: q.ResourceName, Pattern: patternOf(q.Version, q.ResourcePatternType),
		Principal: q.Principal, Host: q.Host, Operation: q.Operation, Permission: q.PermissionType}
	if err := f.Check(); no == nil && err != nil {
		no = refuse(kerr.InvalidRequest, "%v", err)
	}
	if no != nil {
		resp.ErrorCode, resp.ErrorMessage = no.err.Code, &no.msg
		return answer(resp)
	}
	acls := b.security.rules.Load().Select(f)
	sortACLs(acls)
	for _, a := range acls {
		if n := len(resp.Resources); n == 0 || resp.Resources[n-1].ResourceType != a.Resource ||
			resp.Resources[n-1].ResourceName != a.Name || resp.Resources[n-1].ResourcePatternType != a.Pattern {
			rr := kmsg.NewDescribeACLsResponseResource()
			rr.ResourceType, rr.ResourceName, rr.ResourcePatternType = a.Resource, a.Name, a.Pattern
			resp.Resources = append(resp.Resources, rr)
		}
		rr := &resp.Resources[len(resp.Resources)-1]
		ra := kmsg.NewDescribeACLsResponseResourceACL()
		ra.Principal, ra.Host, ra.Operation, ra.PermissionType = a.Principal, a.Host, a.Operation, a.Permission
		rr.ACLs = append(rr.ACLs, ra)
	}
	return answer(resp)
}

func (b *Broker) createACLs(r *request, q *kmsg.CreateACLsRequest) reply {
	resp := response[*kmsg.CreateACLsResponse](q)
	resp.Results = make([]kmsg.CreateACLsResponseResult, len(q.Creations))
	fail := func(i int, no *refusal) {
		resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = no.err.Code, &no.msg
	}
	no := b.mayACLs(r, kmsg.ACLOperationAlter)
	s := b.security
	s.mu.Lock()
	defer s.mu.Unlock()
	rules := s.rules.Load()
	var news []auth.ACL
	var puts []log.Put
	for i, c := range q.Creations {
		a := auth.ACL{Resource: c.ResourceType, Name: c.ResourceName, Pattern: patternOf(q.Version, c.ResourcePatternType),
			Principal: c.Principal, Host: c.Host, Operation: c.Operation, Permission: c.PermissionType}
		switch err := a.Check(); {
		case no != nil:
			fail(i, no)
		case err != nil:
			fail(i, refuse(kerr.InvalidRequest, "%v", err))
		case !rules.Has(a):
			news = append(news, a)
			puts = append(puts, log.Put{Kind: kindACL, Key: aclKey(a), Value: encode(a)})
		}
	}
	if len(news) == 0 {
		return answer(resp)
	}
	if no := s.store(puts); no != nil {
		for i := range resp.Results {
			fail(i, no)
		}
		return answer(resp)
	}
	s.rules.Store(rules.With(news))
	return answer(resp)
}

func (b *Broker) deleteACLs(r *request, q *kmsg.DeleteACLsRequest) reply {
	resp := response[*kmsg.DeleteACLsResponse](q)
	no := b.mayACLs(r, kmsg.ACLOperationAlter)
	s := b.security
	s.mu.Lock()
	defer s.mu.Unlock()
	rules := s.rules.Load()
	gone := map[auth.ACL]bool{}
	var puts []log.Put
	for _, qf := range q.Filters {
		rr := kmsg.NewDeleteACLsResponseResult()
		f := auth.Filter{Resource: qf.ResourceType, Name: qf.ResourceName, Pattern: patternOf(q.Version, qf.ResourcePatternType),
			Principal: qf.Principal, Host: qf.Host, Operation: qf.Operation, Permission: qf.PermissionType}
		refused := no
		if err := f.Check(); refused == nil && err != nil {
			refused = refuse(kerr.InvalidRequest, "%v", err)
		}
		if refused != nil {
			rr.ErrorCode, rr.ErrorMessage = refused.err.Code, &refused.msg
			resp.Results = append(resp.Results, rr)
			continue
		}
		acls := rules.Select(f)
		sortACLs(acls)
		for _, a := range acls {
			rm := kmsg.NewDeleteACLsResponseResultMatchingACL()
			rm.ResourceType, rm.ResourceName, rm.ResourcePatternType = a.Resource, a.Name, a.Pattern
			rm.Principal, rm.Host, rm.Operation, rm.PermissionType = a.Principal, a.Host, a.Operation, a.Permission
			rr.MatchingACLs = append(rr.MatchingACLs, rm)
			if !gone[a] {
				gone[a] = true
				puts = append(puts, log.Put{Kind: kindACL, Key: aclKey(a)})
			}
		}
		resp.Results = append(resp.Results, rr)
	}
	if len(gone) == 0 {
		return answer(resp)
	}
	if no := s.store(puts); no != nil {
		for i := range resp.Results {
			resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = no.err.Code, &no.msg
		}
		return answer(resp)
	}
	s.rules.Store(rules.Without(gone))
	return answer(resp)
}

// mechanismOf names a SCRAM mechanism by Kafka's number.
func mechanismOf(n int8) (auth.Mechanism, bool) {
	switch n {
	case 1:
		return auth.ScramSHA256, true
	case 2:
		return auth.ScramSHA512, true
	}
	return "", false
}

func (b *Broker) describeUserSCRAM(r *request, q *kmsg.DescribeUserSCRAMCredentialsRequest) reply {
	resp := response[*kmsg.DescribeUserSCRAMCredentialsResponse](q)
	if !r.mayCluster(kmsg.ACLOperationDescribe) {
		resp.ErrorCode, resp.ErrorMessage = kerr.ClusterAuthorizationFailed.Code, ptr(kerr.ClusterAuthorizationFailed.Description)
		return answer(resp)
	}
	credentials := *b.security.credentials.Load()
	var users []string
	for l := range credentials {
		if len(q.Users) == 0 {
			users = append(users, l.user)
		}
	}
	times := map[string]int{}
	for _, u := range q.Users {
		if times[u.Name]++; times[u.Name] == 1 {
			users = append(users, u.Name)
		}
	}
	slices.Sort(users)
	for _, user := range slices.Compact(users) {
		rr := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		rr.User = user
		for n := int8(1); n <= 2; n++ {
			m, _ := mechanismOf(n)
			if c, ok := credentials[login{m, user}]; ok {
				rr.CredentialInfos = append(rr.CredentialInfos, kmsg.DescribeUserSCRAMCredentialsResponseResultCredentialInfo{Mechanism: n, Iterations: int32(c.Iterations)})
			}
		}
		switch {
		case times[user] > 1:
			rr.ErrorCode, rr.ErrorMessage = kerr.DuplicateResource.Code, ptr("user "+user+" is asked for more than once")
			rr.CredentialInfos = nil
		case len(rr.CredentialInfos) == 0:
			rr.ErrorCode, rr.ErrorMessage = kerr.ResourceNotFound.Code, ptr("user "+user+" has no SCRAM credential")
		}
		resp.Results = append(resp.Results, rr)
	}
	return answer(resp)
}

// alterUserSCRAM adds and removes credentials: what is wrong with one of a user's changes refuses all of that user's.
func (b *Broker) alterUserSCRAM(r *request, q *kmsg.AlterUserSCRAMCredentialsRequest) reply {
	resp := response[*kmsg.AlterUserSCRAMCredentialsResponse](q)
	s := b.security
	s.mu.Lock()
	defer s.mu.Unlock()
	have := *s.credentials.Load()
	refused := map[string]*refusal{}
	seen := map[login]bool{}
	var users []string
	set, gone := map[login]auth.Credential{}, map[login]bool{}
	look := func(user string, mechanism int8) (login, bool) {
		if !slices.Contains(users, user) {
			users = append(users, user)
		}
		m, ok := mechanismOf(mechanism)
		l := login{m, user}
		switch {
		case !r.mayCluster(kmsg.ACLOperationAlter):
			refused[user] = refuse(kerr.ClusterAuthorizationFailed, "%s may not alter the cluster", r.principal)
		case user == "":
			refused[user] = refuse(kerr.UnacceptableCredential, "the name of a user must not be empty")
		case !ok:
			refused[user] = refuse(kerr.UnsupportedSaslMechanism, "unknown SCRAM mechanism %d", mechanism)
		case seen[l]:
			refused[user] = refuse(kerr.DuplicateResource, "user %s is altered twice in one request", user)
		}
		seen[l] = true
		return l, refused[user] == nil
	}
	for _, d := range q.Deletions {
		if l, ok := look(d.Name, d.Mechanism); ok {
			if _, known := have[l]; !known {
				refused[d.Name] = refuse(kerr.ResourceNotFound, "user %s has no %s credential", d.Name, l.mechanism)
			}
			gone[l] = true
		}
	}
	for _, u := range q.Upsertions {
		if l, ok := look(u.Name, u.Mechanism); ok {
			c, err := auth.SaltedCredential(l.mechanism, slices.Clone(u.Salt), u.SaltedPassword, int(u.Iterations))
			if errors.Is(err, auth.ErrCredential) {
				refused[u.Name] = refuse(kerr.UnacceptableCredential, "%v", err)
			}
			set[l] = c
		}
	}
	var drop []login
	for l := range gone {
		if refused[l.user] == nil {
			drop = append(drop, l)
		}
	}
	for l := range set {
		if refused[l.user] != nil {
			delete(set, l)
		}
	}
	failed := s.setCredentials(set, drop)
	for _, user := range users {
		rr := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		rr.User = user
		no := refused[user]
		if no == nil {
			no = failed
		}
		if no != nil {
			rr.ErrorCode, rr.ErrorMessage = no.err.Code, &no.msg
		}
		resp.Results = append(resp.Results, rr)
	}
	return answer(resp)
}
