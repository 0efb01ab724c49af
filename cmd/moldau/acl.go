package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ruleFlags are the parts of access rules. What is not given selects everything.
type ruleFlags struct {
	topics, groups, ids, allow, deny, hosts, operations list
	cluster, prefixed                                   bool
}

func (r *ruleFlags) register(f *flag.FlagSet) {
	f.Var(&r.topics, "topic", "`name` of a topic, * for all; this and the next may be given several times")
	f.Var(&r.groups, "group", "`name` of a group, * for all")
	f.Var(&r.ids, "txn-id", "`name` of a transactional id, * for all")
	f.BoolVar(&r.cluster, "cluster", false, "the cluster itself")
	f.BoolVar(&r.prefixed, "prefixed", false, "names are the beginnings of names")
	f.Var(&r.operations, "operation", "`what`: read, write, create, delete, alter, describe, describe_configs, alter_configs, idempotent_write, all")
	f.Var(&r.allow, "allow", "`User:NAME` who may")
	f.Var(&r.deny, "deny", "`User:NAME` who may not")
	f.Var(&r.hosts, "host", "`address` that the rule is for (default *: all)")
}

// builder makes rules, or a filter of rules.
func (r *ruleFlags) builder(filter bool) (*kadm.ACLBuilder, error) {
	b := kadm.NewACLs().MaybeTopics(r.topics...).MaybeGroups(r.groups...).MaybeTransactionalIDs(r.ids...).MaybeClusters(r.cluster).
		MaybeAllow(r.allow...).MaybeDeny(r.deny...)
	if hosts := r.hosts; len(hosts) > 0 || !filter {
		if len(hosts) == 0 {
			hosts = list{"*"}
		}
		if len(r.allow) > 0 {
			b.AllowHosts(hosts...)
		}
		if len(r.deny) > 0 {
			b.DenyHosts(hosts...)
		}
	}
	pattern := kadm.ACLPatternLiteral
	if r.prefixed {
		pattern = kadm.ACLPatternPrefixed
	}
	var operations []kadm.ACLOperation
	for _, o := range r.operations {
		op, err := kmsg.ParseACLOperation(o)
		if err != nil {
			return nil, usageError{fmt.Errorf("-operation %q is none", o)}
		}
		operations = append(operations, op)
	}
	if filter {
		if !b.HasResource() {
			b.AnyResource()
			if !r.prefixed {
				pattern = kadm.ACLPatternAny
			}
		}
		if len(r.allow) == 0 && len(r.deny) == 0 {
			b.Allow().Deny()
			b.AllowHosts(r.hosts...).DenyHosts(r.hosts...)
		} else if len(r.hosts) == 0 {
			if len(r.allow) > 0 {
				b.AllowHosts()
			}
			if len(r.deny) > 0 {
				b.DenyHosts()
			}
		}
		return b.ResourcePatternType(pattern).Operations(operations...), nil
	}
	switch {
	case !b.HasResource():
		return nil, usageError{errors.New("a rule is about something: -topic, -group, -txn-id or -cluster")}
	case !b.HasPrincipals():
		return nil, usageError{errors.New("a rule is about somebody: -allow or -deny User:NAME")}
	case len(operations) == 0:
		return nil, usageError{errors.New("a rule is about doing something: -operation")}
	}
	return b.ResourcePatternType(pattern).Operations(operations...), nil
}

var aclCommand = administration("acl", "access rules: list, create, delete",
	verb{"list", "", 0, 0, "rules, all or those that the flags select", func(f *flag.FlagSet) func(context.Context, *admin, []string) error {
		var r ruleFlags
		r.register(f)
		return func(ctx context.Context, a *admin, _ []string) error {
			b, err := r.builder(true)
			if err != nil {
				return err
			}
			found, err := a.DescribeACLs(ctx, b)
			if err != nil {
				return err
			}
			a.ruleHead()
			for _, f := range found {
				if f.Err != nil {
					return explained(f.Err, f.ErrMessage)
				}
				for _, d := range f.Described {
					a.rule(d.Type, d.Name, d.Pattern, d.Principal, d.Host, d.Operation, d.Permission)
				}
			}
			return nil
		}
	}},
	verb{"create", "", 0, 0, "a rule for each thing, principal and operation", func(f *flag.FlagSet) func(context.Context, *admin, []string) error {
		var r ruleFlags
		r.register(f)
		return func(ctx context.Context, a *admin, _ []string) error {
			b, err := r.builder(false)
			if err != nil {
				return err
			}
			made, err := a.CreateACLs(ctx, b)
			if err != nil {
				return err
			}
			a.ruleHead()
			for _, m := range made {
				if m.Err != nil {
					return explained(m.Err, m.ErrMessage)
				}
				a.rule(m.Type, m.Name, m.Pattern, m.Principal, m.Host, m.Operation, m.Permission)
			}
			return nil
		}
	}},
	verb{"delete", "", 0, 0, "the rules that the flags select; -all for every one", func(f *flag.FlagSet) func(context.Context, *admin, []string) error {
		var r ruleFlags
		r.register(f)
		every := f.Bool("all", false, "every rule there is")
		return func(ctx context.Context, a *admin, _ []string) error {
			chosen := len(r.topics)+len(r.groups)+len(r.ids)+len(r.allow)+len(r.deny)+len(r.operations)+len(r.hosts) > 0 || r.cluster
			if !chosen && !*every {
				return usageError{errors.New("no flag selects rules; -all deletes every one")}
			}
			b, err := r.builder(true)
			if err != nil {
				return err
			}
			gone, err := a.DeleteACLs(ctx, b)
			if err != nil {
				return err
			}
			a.ruleHead()
			for _, g := range gone {
				if g.Err != nil {
					return explained(g.Err, g.ErrMessage)
				}
				for _, d := range g.Deleted {
					a.rule(d.Type, d.Name, d.Pattern, d.Principal, d.Host, d.Operation, d.Permission)
				}
			}
			return nil
		}
	}},
)

func (a *admin) ruleHead() {
	a.head("permission", "principal", "host", "operation", "resource", "name", "pattern")
}

func (a *admin) rule(typ kmsg.ACLResourceType, name string, pattern kadm.ACLPattern, principal, host string, op kadm.ACLOperation, permission kmsg.ACLPermissionType) {
	low := func(s fmt.Stringer) string { return strings.ToLower(s.String()) }
	a.row(low(permission), principal, host, low(op), low(typ), name, low(pattern))
}

var userCommand = administration("user", "SCRAM users: list, set, delete",
	verb{"list", "[USER...]", 0, -1, "users and their mechanisms; passwords are not known to the cluster", simple(func(ctx context.Context, a *admin, args []string) error {
		users, err := a.DescribeUserSCRAMs(ctx, args...)
		if err != nil {
			return err
		}
		a.head("user", "mechanism", "iterations")
		for _, u := range users.Sorted() {
			if u.Err != nil {
				return explained(u.Err, u.ErrMessage)
			}
			for _, c := range u.CredInfos {
				a.row(u.User, c.Mechanism.String(), c.Iterations)
			}
		}
		return nil
	})},
	verb{"set", "USER", 1, 1, "a user with the password of -new-password-file", func(f *flag.FlagSet) func(context.Context, *admin, []string) error {
		file := f.String("new-password-file", "", "`file` with the password; - is the standard input")
		iterations := f.Int("iterations", 8192, "`number` between 4096 and 16384")
		return func(ctx context.Context, a *admin, args []string) error {
			password, err := readSecret(a.stdin, *file)
			if err != nil {
				return err
			}
			var set []kadm.UpsertSCRAM
			for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
				set = append(set, kadm.UpsertSCRAM{User: args[0], Mechanism: m, Iterations: int32(*iterations), Password: password})
			}
			return a.scramResult(a.AlterUserSCRAMs(ctx, nil, set))
		}
	}},
	verb{"delete", "USER...", 1, -1, "users, in every mechanism", simple(func(ctx context.Context, a *admin, args []string) error {
		users, err := a.DescribeUserSCRAMs(ctx, args...)
		if err != nil {
			return err
		}
		var del []kadm.DeleteSCRAM
		for _, u := range users.Sorted() {
			if u.Err != nil {
				a.result(u.User, explained(u.Err, u.ErrMessage))
			}
			for _, c := range u.CredInfos {
				del = append(del, kadm.DeleteSCRAM{User: u.User, Mechanism: c.Mechanism})
			}
		}
		if len(del) == 0 {
			return nil
		}
		return a.scramResult(a.AlterUserSCRAMs(ctx, del, nil))
	})},
)

// readSecret reads a password: a file has no place in a list of processes.
func readSecret(stdin io.Reader, file string) (string, error) {
	var b []byte
	var err error
	switch file {
	case "":
		return "", usageError{errors.New("-new-password-file names the file with the password, - the standard input")}
	case "-":
		b, err = io.ReadAll(io.LimitReader(stdin, 1<<16))
	default:
		b, err = os.ReadFile(file)
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if err == nil && secret == "" {
		err = errors.New("the password is empty")
	}
	return secret, err
}

func (a *admin) scramResult(rs kadm.AlteredUserSCRAMs, err error) error {
	if err != nil {
		return err
	}
	for _, r := range rs.Sorted() {
		a.result(r.User, explained(r.Err, r.ErrMessage))
	}
	return nil
}
