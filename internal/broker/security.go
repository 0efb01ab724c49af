package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
	"github.com/moldau/moldau/internal/broker/log"
)

// OAuth says whose tokens are believed, for SASL OAUTHBEARER.
type OAuth struct {
	// Keys is where the issuer's JSON Web Key Set is: an https or http URL, or a file (sasl.oauthbearer.jwks.endpoint.url).
	Keys string
	// Issuer and Audience are demanded of tokens (sasl.oauthbearer.expected.issuer, .expected.audience); "": not.
	Issuer, Audience string
	// UserClaim is the claim that names the user (sasl.oauthbearer.sub.claim.name); default sub.
	UserClaim string
}

// maxKeys bounds a key set that is fetched.
const maxKeys = 1 << 20

func (o *OAuth) fetch() ([]byte, error) {
	if !strings.Contains(o.Keys, "://") {
		return os.ReadFile(o.Keys)
	}
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get(o.Keys)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", o.Keys, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxKeys))
}

// security is what the broker knows of users: rules, credentials and quotas, as records in the log.
type security struct {
	log           *log.Log
	policy        auth.Policy
	enforce       bool
	authenticator *auth.Authenticator
	quotas        *auth.Quotas

	// mu is held by writers until what they change is durable. Readers take the current state without it.
	mu          sync.Mutex
	rules       atomic.Pointer[auth.Rules]
	credentials atomic.Pointer[map[login]auth.Credential]
}

// login is a user in one mechanism.
type login struct {
	mechanism auth.Mechanism
	user      string
}

func (l login) key() string { return string(l.mechanism) + " " + l.user }

// stored is the form in which all of it is kept.
type stored[T any] struct {
	Version int `json:"v"`
	Data    T   `json:"data"`
}

const securityVersion = 1

func encode[T any](data T) []byte {
	b, err := json.Marshal(stored[T]{securityVersion, data})
	if err != nil {
		panic("broker: " + err.Error()) // strings and numbers always marshal
	}
	return b
}

func decode[T any](what string, b []byte) (T, error) {
	var s stored[T]
	if err := json.Unmarshal(b, &s); err != nil {
		return s.Data, fmt.Errorf("broker: the record of %s: %w", what, err)
	}
	if s.Version != securityVersion {
		return s.Data, fmt.Errorf("broker: the record of %s has format %d, this version of Moldau reads format %d", what, s.Version, securityVersion)
	}
	return s.Data, nil
}

// aclKey is the key of a rule's record: a text in which nothing is ambiguous.
func aclKey(a auth.ACL) string {
	return fmt.Sprintf("%d %d %q %q %q %d %d", a.Resource, a.Pattern, a.Name, a.Principal, a.Host, a.Operation, a.Permission)
}

func quotaKey(e auth.Entity) string {
	if e.IP != "" {
		return fmt.Sprintf("ip %q", e.IP)
	}
	return fmt.Sprintf("%q %q", e.User, e.Client)
}

// quotaRecord is the quotas of one entity as they are stored.
type quotaRecord struct {
	auth.Entity
	Limits map[string]float64 `json:"limits"`
}

// newSecurity takes the records back in.
func newSecurity(l *log.Log, c Config) (*security, error) {
	s := &security{log: l, enforce: c.ACLs, quotas: auth.NewQuotas(), policy: auth.Policy{SuperUsers: map[string]bool{}, AllowIfNoACL: c.AllowIfNoACL}}
	for _, u := range c.SuperUsers {
		s.policy.SuperUsers[u] = true
	}
	var acls []auth.ACL
	for _, value := range l.Records(kindACL) {
		a, err := decode[auth.ACL]("an ACL", value)
		if err != nil {
			return nil, err
		}
		acls = append(acls, a)
	}
	s.rules.Store(auth.NewRules(acls...))
	credentials := map[login]auth.Credential{}
	for key, value := range l.Records(kindUser) {
		cred, err := decode[auth.Credential]("a user", value)
		if err != nil {
			return nil, err
		}
		mechanism, user, _ := strings.Cut(key, " ")
		credentials[login{auth.Mechanism(strings.Clone(mechanism)), strings.Clone(user)}] = cred
	}
	s.credentials.Store(&credentials)
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	for _, value := range l.Records(kindQuota) {
		q, err := decode[quotaRecord]("a quota", value)
		if err != nil {
			return nil, err
		}
		address, err := addressOf(ctx, q.Entity)
		if err != nil {
			c.Logger.Error("the quota of a host does not count", "err", err)
		}
		s.quotas.SetAt(q.Entity, address, q.Limits)
	}
	var tokens *auth.Tokens
	if o := c.OAuth; o != nil {
		tokens = auth.NewTokens(auth.TokenConfig{Fetch: o.fetch, Issuer: o.Issuer, Audience: o.Audience, UserClaim: o.UserClaim})
	}
	var err error
	s.authenticator, err = auth.NewAuthenticator(c.Users, func(m auth.Mechanism, user string) (auth.Credential, bool) {
		cred, ok := (*s.credentials.Load())[login{m, user}]
		return cred, ok
	}, tokens)
	return s, err
}

// store makes records durable, in one write.
func (s *security) store(puts []log.Put) *refusal {
	if len(puts) == 0 {
		return nil
	}
	f := newFuture()
	s.log.Submit(log.Write{Puts: puts}, log.WaitSync, f.set)
	if <-f.done; f.err != nil {
		return refuse(kerr.KafkaStorageError, "%v", f.err)
	}
	return nil
}

// setCredentials adds and removes credentials.
func (s *security) setCredentials(set map[login]auth.Credential, gone []login) *refusal {
	next := maps.Clone(*s.credentials.Load())
	var puts []log.Put
	for _, l := range gone {
		delete(next, l)
		puts = append(puts, log.Put{Kind: kindUser, Key: l.key()})
	}
	for l, c := range set {
		next[l] = c
		puts = append(puts, log.Put{Kind: kindUser, Key: l.key(), Value: encode(c)})
	}
	if no := s.store(puts); no != nil {
		return no
	}
	s.credentials.Store(&next)
	return nil
}

// free says whether a request is not subject to rules.
func (r *request) free() bool { return !r.conn.b.security.enforce || r.conn.listener == nil }

// may says whether the client may do something with a resource.
func (r *request) may(op kmsg.ACLOperation, typ kmsg.ACLResourceType, name string) bool {
	if r.free() {
		return true
	}
	s := r.conn.b.security
	return s.rules.Load().Allows(s.policy, r.principal, r.conn.host[1:], op, typ, name)
}

func (r *request) mayTopic(op kmsg.ACLOperation, name string) bool {
	return r.may(op, kmsg.ACLResourceTypeTopic, name)
}

// mayRead says whether a client may read the topic that it asked for. Of an id that nobody has there is nothing to hide.
func (r *request) mayRead(t *topic, byID bool, name string) bool {
	switch {
	case t != nil:
		name = t.name
	case byID:
		return true
	}
	return r.mayTopic(kmsg.ACLOperationRead, name)
}

func (r *request) mayGroup(op kmsg.ACLOperation, id string) bool {
	return r.may(op, kmsg.ACLResourceTypeGroup, id)
}

func (r *request) mayTransact(op kmsg.ACLOperation, id string) bool {
	return r.may(op, kmsg.ACLResourceTypeTransactionalId, id)
}

func (r *request) mayCluster(op kmsg.ACLOperation) bool {
	return r.may(op, kmsg.ACLResourceTypeCluster, auth.ClusterName)
}

// mayProduceSomewhere says whether the client may have a producer id of its own: it may if it may write anywhere.
func (r *request) mayProduceSomewhere() bool {
	if r.mayCluster(kmsg.ACLOperationIdempotentWrite) {
		return true
	}
	s := r.conn.b.security
	return s.rules.Load().AllowsAny(s.policy, r.principal, r.conn.host[1:], kmsg.ACLOperationWrite, kmsg.ACLResourceTypeTopic)
}

// mayCreate says whether the client may make a topic.
func (r *request) mayCreate(topic string) bool {
	return r.mayCluster(kmsg.ACLOperationCreate) || r.mayTopic(kmsg.ACLOperationCreate, topic)
}

// authorizedCluster is authorized for the cluster, of which clients that may not describe it learn nothing.
func (r *request) authorizedCluster() int32 {
	if !r.mayCluster(kmsg.ACLOperationDescribe) {
		return 0
	}
	return r.authorized(kmsg.ACLResourceTypeCluster, auth.ClusterName)
}

// operations are what there is to do with resources of a type.
func operations(typ kmsg.ACLResourceType) []kmsg.ACLOperation {
	switch typ {
	case kmsg.ACLResourceTypeTopic:
		return []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationCreate, kmsg.ACLOperationDelete,
			kmsg.ACLOperationAlter, kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs, kmsg.ACLOperationAlterConfigs}
	case kmsg.ACLResourceTypeGroup:
		return []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationDelete, kmsg.ACLOperationDescribe}
	}
	return []kmsg.ACLOperation{kmsg.ACLOperationCreate, kmsg.ACLOperationAlter, kmsg.ACLOperationDescribe, kmsg.ACLOperationClusterAction,
		kmsg.ACLOperationDescribeConfigs, kmsg.ACLOperationAlterConfigs, kmsg.ACLOperationIdempotentWrite}
}

// authorized returns what the client may do with a resource, as a set of Kafka's operation codes.
func (r *request) authorized(typ kmsg.ACLResourceType, name string) int32 {
	set := int32(0)
	for _, op := range operations(typ) {
		if r.may(op, typ, name) {
			set |= 1 << op
		}
	}
	return set
}
