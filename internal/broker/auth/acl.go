// Package auth decides who a client of the broker is and what it may do: mechanisms of authentication as exchanges of
// messages, access control lists as rules over immutable sets, quotas as meters. It speaks to no client, stores nothing and
// has no clock: the broker carries the messages, keeps the records and passes the time in. It refuses to log or to
// describe a secret.
package auth

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ClusterName is the name of the one resource of type cluster.
const ClusterName = "kafka-cluster"

// ACL is one rule: what a principal may or must not do with the resources of a pattern, from a host.
type ACL struct {
	Resource   kmsg.ACLResourceType        `json:"resource"`
	Name       string                      `json:"name"` // "*" with a literal pattern: every resource of the type
	Pattern    kmsg.ACLResourcePatternType `json:"pattern"`
	Principal  string                      `json:"principal"` // as "User:alice"; "User:*": every user
	Host       string                      `json:"host"`      // an IP address; "*": every host
	Operation  kmsg.ACLOperation           `json:"operation"`
	Permission kmsg.ACLPermissionType      `json:"permission"`
}

// Check says why a rule cannot be added.
func (a ACL) Check() error {
	kind, _, ok := strings.Cut(a.Principal, ":")
	switch {
	case a.Resource <= kmsg.ACLResourceTypeAny || a.Resource > kmsg.ACLResourceTypeUser:
		return invalid("resource type %d is not one that rules can be about", a.Resource)
	case a.Pattern != kmsg.ACLResourcePatternTypeLiteral && a.Pattern != kmsg.ACLResourcePatternTypePrefixed:
		return invalid("pattern type %d is neither literal nor prefixed", a.Pattern)
	case a.Operation <= kmsg.ACLOperationAny || a.Operation > kmsg.ACLOperationDescribeTokens+2:
		return invalid("operation %d is not one that rules can be about", a.Operation)
	case a.Permission != kmsg.ACLPermissionTypeAllow && a.Permission != kmsg.ACLPermissionTypeDeny:
		return invalid("permission %d is neither allow nor deny", a.Permission)
	case a.Name == "":
		return invalid("the name of the resource is empty")
	case a.Resource == kmsg.ACLResourceTypeCluster && a.Name != ClusterName:
		return invalid("the only resource of type cluster is %s", ClusterName)
	case !ok || kind == "":
		return invalid("principal %q has no type; write it as User:NAME", a.Principal)
	case a.Host == "":
		return invalid("the host is empty; * is every host")
	}
	return nil
}

// Filter selects rules; nil and Any select all.
type Filter struct {
	Resource        kmsg.ACLResourceType
	Name            *string
	Pattern         kmsg.ACLResourcePatternType // Match: rules that apply to the resource Name
	Principal, Host *string
	Operation       kmsg.ACLOperation
	Permission      kmsg.ACLPermissionType
}

// Check says why a filter makes no sense.
func (f Filter) Check() error {
	if f.Resource == kmsg.ACLResourceTypeUnknown || f.Resource > kmsg.ACLResourceTypeUser ||
		f.Pattern == kmsg.ACLResourcePatternTypeUnknown || f.Pattern > kmsg.ACLResourcePatternTypePrefixed ||
		f.Operation == kmsg.ACLOperationUnknown || f.Operation > kmsg.ACLOperationDescribeTokens+2 ||
		f.Permission == kmsg.ACLPermissionTypeUnknown || f.Permission > kmsg.ACLPermissionTypeAllow {
		return invalid("the filter has an element that is not known")
	}
	return nil
}

// Selects says whether a filter selects a rule.
func (f Filter) Selects(a ACL) bool {
	return (f.Resource == kmsg.ACLResourceTypeAny || f.Resource == a.Resource) && f.selectsName(a) &&
		(f.Principal == nil || *f.Principal == a.Principal) && (f.Host == nil || *f.Host == a.Host) &&
		(f.Operation == kmsg.ACLOperationAny || f.Operation == a.Operation) &&
		(f.Permission == kmsg.ACLPermissionTypeAny || f.Permission == a.Permission)
}

func (f Filter) selectsName(a ACL) bool {
	switch f.Pattern {
	case kmsg.ACLResourcePatternTypeAny:
		return f.Name == nil || *f.Name == a.Name
	case kmsg.ACLResourcePatternTypeMatch:
		switch {
		case f.Name == nil || *f.Name == a.Name:
			return true
		case a.Pattern == kmsg.ACLResourcePatternTypeLiteral:
			return a.Name == "*"
		default:
			return strings.HasPrefix(*f.Name, a.Name)
		}
	default:
		return f.Pattern == a.Pattern && (f.Name == nil || *f.Name == a.Name)
	}
}
