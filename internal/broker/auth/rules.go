package auth

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Everyone is the principal of a rule for every user.
const Everyone = "User:*"

// Rules is a set of rules. It is never changed: With and Without return others.
type Rules struct {
	all map[ACL]struct{}
	// literal and prefixed are the rules by the resource they name; lengths are those of the prefixes there are, by type.
	literal, prefixed map[resource][]ACL
	lengths           map[kmsg.ACLResourceType][]int
}

type resource struct {
	typ  kmsg.ACLResourceType
	name string
}

// NewRules returns a set of rules.
func NewRules(acls ...ACL) *Rules {
	r := &Rules{all: make(map[ACL]struct{}, len(acls)), literal: map[resource][]ACL{}, prefixed: map[resource][]ACL{}, lengths: map[kmsg.ACLResourceType][]int{}}
	lengths := map[kmsg.ACLResourceType]map[int]bool{}
	for _, a := range acls {
		if _, ok := r.all[a]; ok {
			continue
		}
		r.all[a] = struct{}{}
		on := resource{a.Resource, a.Name}
		if a.Pattern == kmsg.ACLResourcePatternTypeLiteral {
			r.literal[on] = append(r.literal[on], a)
			continue
		}
		r.prefixed[on] = append(r.prefixed[on], a)
		if lengths[a.Resource] == nil {
			lengths[a.Resource] = map[int]bool{}
		}
		if !lengths[a.Resource][len(a.Name)] {
			lengths[a.Resource][len(a.Name)] = true
			r.lengths[a.Resource] = append(r.lengths[a.Resource], len(a.Name))
		}
	}
	return r
}

// Has says whether a rule is in the set.
func (r *Rules) Has(a ACL) bool {
	_, ok := r.all[a]
	return ok
}

// With returns the set with more rules.
func (r *Rules) With(more []ACL) *Rules { return NewRules(append(r.list(), more...)...) }

// Without returns the set with fewer rules.
func (r *Rules) Without(gone map[ACL]bool) *Rules {
	var kept []ACL
	for _, a := range r.list() {
		if !gone[a] {
			kept = append(kept, a)
		}
	}
	return NewRules(kept...)
}

func (r *Rules) list() []ACL {
	acls := make([]ACL, 0, len(r.all))
	for a := range r.all {
		acls = append(acls, a)
	}
	return acls
}

// Select returns the rules that a filter selects, in no order.
func (r *Rules) Select(f Filter) []ACL {
	var out []ACL
	for a := range r.all {
		if f.Selects(a) {
			out = append(out, a)
		}
	}
	return out
}

// each visits the rules about a resource until visit returns false.
func (r *Rules) each(typ kmsg.ACLResourceType, name string, visit func(*ACL) bool) {
	walk := func(acls []ACL) bool {
		for i := range acls {
			if !visit(&acls[i]) {
				return false
			}
		}
		return true
	}
	if !walk(r.literal[resource{typ, name}]) || name != "*" && !walk(r.literal[resource{typ, "*"}]) {
		return
	}
	for _, n := range r.lengths[typ] {
		if n <= len(name) && !walk(r.prefixed[resource{typ, name[:n]}]) {
			return
		}
	}
}

// Policy is how rules are applied.
type Policy struct {
	// SuperUsers may do everything (super.users), as "User:alice".
	SuperUsers map[string]bool
	// AllowIfNoACL allows what no rule is about (allow.everyone.if.no.acl.found).
	AllowIfNoACL bool
}

// concerns says whether a rule is about a principal on a host, and an operation. Whoever may read, write, delete or
// alter may also describe; a denial denies what it says and no more.
func (a *ACL) concerns(principal, host string, op kmsg.ACLOperation) bool {
	if a.Principal != principal && (a.Principal != Everyone || !strings.HasPrefix(principal, "User:")) || a.Host != "*" && a.Host != host {
		return false
	}
	if a.Operation == op || a.Operation == kmsg.ACLOperationAll {
		return true
	}
	if a.Permission != kmsg.ACLPermissionTypeAllow {
		return false
	}
	switch op {
	case kmsg.ACLOperationDescribe:
		switch a.Operation {
		case kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDelete, kmsg.ACLOperationAlter:
			return true
		}
	case kmsg.ACLOperationDescribeConfigs:
		return a.Operation == kmsg.ACLOperationAlterConfigs
	}
	return false
}

// Allows says whether a principal may do something with a resource: a super user may; a rule that denies wins over rules
// that allow; what nothing allows is refused.
func (r *Rules) Allows(p Policy, principal, host string, op kmsg.ACLOperation, typ kmsg.ACLResourceType, name string) bool {
	if p.SuperUsers[principal] {
		return true
	}
	found, allowed, denied := false, false, false
	r.each(typ, name, func(a *ACL) bool {
		found = true
		if a.concerns(principal, host, op) {
			allowed = true
			denied = a.Permission == kmsg.ACLPermissionTypeDeny
		}
		return !denied
	})
	return !denied && (allowed || !found && p.AllowIfNoACL)
}

// AllowsAny says whether there is a resource of a type with which a principal may do something, be it one that nobody has
// made yet.
func (r *Rules) AllowsAny(p Policy, principal, host string, op kmsg.ACLOperation, typ kmsg.ACLResourceType) bool {
	if p.SuperUsers[principal] {
		return true
	}
	denied := func(acls []ACL) bool {
		for i := range acls {
			if acls[i].Permission == kmsg.ACLPermissionTypeDeny && acls[i].concerns(principal, host, op) {
				return true
			}
		}
		return false
	}
	if denied(r.literal[resource{typ, "*"}]) {
		return false
	}
	if p.AllowIfNoACL {
		return true
	}
	for a := range r.all {
		if a.Resource != typ || a.Permission != kmsg.ACLPermissionTypeAllow || !a.concerns(principal, host, op) {
			continue
		}
		no := a.Pattern == kmsg.ACLResourcePatternTypeLiteral && a.Name != "*" && denied(r.literal[resource{typ, a.Name}])
		for _, n := range r.lengths[typ] {
			no = no || n <= len(a.Name) && denied(r.prefixed[resource{typ, a.Name[:n]}])
		}
		if !no {
			return true
		}
	}
	return false
}
