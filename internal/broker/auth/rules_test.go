package auth

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	topic   = kmsg.ACLResourceTypeTopic
	literal = kmsg.ACLResourcePatternTypeLiteral
	prefix  = kmsg.ACLResourcePatternTypePrefixed
	allow   = kmsg.ACLPermissionTypeAllow
	deny    = kmsg.ACLPermissionTypeDeny
	read    = kmsg.ACLOperationRead
	write   = kmsg.ACLOperationWrite
	descr   = kmsg.ACLOperationDescribe
	all     = kmsg.ACLOperationAll
)

func rule(principal, host string, op kmsg.ACLOperation, pattern kmsg.ACLResourcePatternType, name string, p kmsg.ACLPermissionType) ACL {
	return ACL{topic, name, pattern, principal, host, op, p}
}

func TestAllows(t *testing.T) {
	rules := NewRules(
		rule("User:alice", "*", read, literal, "orders", allow),
		rule("User:alice", "10.0.0.1", write, literal, "orders", allow),
		rule("User:*", "*", read, prefix, "pub.", allow),
		rule("User:bob", "*", all, prefix, "pub.secret", deny),
		rule("User:carol", "*", all, literal, "*", allow),
		rule("User:carol", "*", descr, literal, "orders", deny),
		rule("User:dave", "*", kmsg.ACLOperationAlterConfigs, literal, "orders", allow),
	)
	for _, c := range []struct {
		principal, host string
		op              kmsg.ACLOperation
		name            string
		want            bool
	}{
		{"User:alice", "h", read, "orders", true},
		{"User:alice", "h", descr, "orders", true}, // comes with reading
		{"User:alice", "h", write, "orders", false},
		{"User:alice", "10.0.0.1", write, "orders", true},
		{"User:alice", "h", read, "orders2", false},
		{"User:bob", "h", read, "pub.news", true},
		{"User:bob", "h", read, "pub.secret.1", false}, // a denial wins
		{"User:alice", "h", read, "pub.secret.1", true},
		{"User:carol", "h", write, "anything", true},
		{"User:carol", "h", descr, "orders", false},
		{"User:carol", "h", read, "orders", true}, // a denial denies what it says and no more
		{"User:dave", "h", kmsg.ACLOperationDescribeConfigs, "orders", true},
		{"User:dave", "h", descr, "orders", false},
		{"User:nobody", "h", read, "orders", false},
		{"User:root", "h", write, "orders", true},
	} {
		p := Policy{SuperUsers: map[string]bool{"User:root": true}}
		if got := rules.Allows(p, c.principal, c.host, c.op, topic, c.name); got != c.want {
			t.Errorf("%s from %s: operation %d on %s: %v, want %v", c.principal, c.host, c.op, c.name, got, c.want)
		}
	}
	open := Policy{AllowIfNoACL: true}
	if NewRules().Allows(Policy{}, "User:x", "h", read, topic, "t") || !NewRules().Allows(open, "User:x", "h", read, topic, "t") {
		t.Error("what no rule is about is refused unless the policy says otherwise")
	}
	if rules.Allows(open, "User:x", "h", read, topic, "orders") {
		t.Error("rules are about orders, if not for x")
	}
}

// Indexes and early ends change nothing: the set decides as a plain walk over its rules would.
func TestAllowsAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"*", "a", "ab", "abc", "b", "ba"}
	users := []string{"User:*", "User:a", "User:b", "User:c"}
	ops := []kmsg.ACLOperation{all, read, write, descr}
	pick := func() ACL {
		return ACL{topic, names[r.IntN(len(names))], []kmsg.ACLResourcePatternType{literal, prefix}[r.IntN(2)], users[r.IntN(len(users))],
			[]string{"*", "h"}[r.IntN(2)], ops[r.IntN(len(ops))], []kmsg.ACLPermissionType{allow, allow, deny}[r.IntN(3)]}
	}
	model := func(acls []ACL, open bool, user, host string, op kmsg.ACLOperation, name string) bool {
		found, allowed := false, false
		for _, a := range acls {
			on := a.Pattern == literal && (a.Name == name || a.Name == "*") || a.Pattern == prefix && strings.HasPrefix(name, a.Name)
			found = found || on
			who := (a.Principal == user || a.Principal == Everyone) && (a.Host == "*" || a.Host == host)
			does := a.Operation == op || a.Operation == all || a.Permission == allow && op == descr && (a.Operation == read || a.Operation == write)
			if on && who && does && a.Permission == deny {
				return false
			}
			allowed = allowed || on && who && does
		}
		return allowed || !found && open
	}
	for range 20_000 {
		var acls []ACL
		for range r.IntN(6) {
			acls = append(acls, pick())
		}
		rules := NewRules(acls...)
		user, host, op, name := users[1+r.IntN(3)], []string{"h", "i"}[r.IntN(2)], ops[1+r.IntN(3)], names[1+r.IntN(5)]
		open := r.IntN(2) == 0
		if got, want := rules.Allows(Policy{AllowIfNoACL: open}, user, host, op, topic, name), model(acls, open, user, host, op, name); got != want {
			t.Fatalf("%s from %s: %d on %s: %v, the model says %v, rules %+v", user, host, op, name, got, want, acls)
		}
		// Somewhere is at least where it is allowed.
		if !open && model(acls, false, user, host, op, name) && !rules.AllowsAny(Policy{}, user, host, op, topic) {
			denied := false
			for _, a := range acls {
				denied = denied || a.Permission == deny
			}
			if !denied {
				t.Fatalf("%s may do %d with %s but nowhere, rules %+v", user, op, name, acls)
			}
		}
	}
}

func TestSelect(t *testing.T) {
	acls := []ACL{
		rule("User:a", "*", read, literal, "orders", allow),
		rule("User:a", "*", read, prefix, "ord", allow),
		rule("User:b", "*", read, literal, "*", deny),
		rule("User:b", "*", read, literal, "other", deny),
	}
	rules := NewRules(acls...)
	name := "orders"
	base := Filter{Resource: kmsg.ACLResourceTypeAny, Pattern: kmsg.ACLResourcePatternTypeAny, Operation: kmsg.ACLOperationAny, Permission: kmsg.ACLPermissionTypeAny}
	with := func(edit func(*Filter)) Filter { f := base; edit(&f); return f }
	for what, c := range map[string]struct {
		f    Filter
		want int
	}{
		"everything":       {base, 4},
		"of the name":      {with(func(f *Filter) { f.Name = &name }), 1},
		"about the topic":  {with(func(f *Filter) { f.Name = &name; f.Pattern = kmsg.ACLResourcePatternTypeMatch }), 3},
		"literal":          {with(func(f *Filter) { f.Pattern = literal }), 3},
		"denials":          {with(func(f *Filter) { f.Permission = deny }), 2},
		"of another type":  {with(func(f *Filter) { f.Resource = kmsg.ACLResourceTypeGroup }), 0},
		"of one principal": {with(func(f *Filter) { u := "User:b"; f.Principal = &u }), 2},
	} {
		if got := rules.Select(c.f); len(got) != c.want {
			t.Errorf("%s: %d rules, want %d: %+v", what, len(got), c.want, got)
		}
	}
	if n := len(rules.Without(map[ACL]bool{acls[0]: true}).Select(base)); n != 3 {
		t.Errorf("%d rules are left of 4 without 1", n)
	}
}

func TestACLCheck(t *testing.T) {
	good := rule("User:a", "*", read, literal, "t", allow)
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for what, edit := range map[string]func(*ACL){
		"no type of principal": func(a *ACL) { a.Principal = "alice" },
		"any resource":         func(a *ACL) { a.Resource = kmsg.ACLResourceTypeAny },
		"match is for filters": func(a *ACL) { a.Pattern = kmsg.ACLResourcePatternTypeMatch },
		"any operation":        func(a *ACL) { a.Operation = kmsg.ACLOperationAny },
		"no permission":        func(a *ACL) { a.Permission = 0 },
		"no host":              func(a *ACL) { a.Host = "" },
		"no name":              func(a *ACL) { a.Name = "" },
		"another cluster":      func(a *ACL) { a.Resource, a.Name = kmsg.ACLResourceTypeCluster, "mine" },
	} {
		a := good
		if edit(&a); a.Check() == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}
