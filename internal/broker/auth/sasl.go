package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Mechanism is a SASL mechanism.
type Mechanism string

// The mechanisms served.
const (
	Plain       Mechanism = "PLAIN"
	ScramSHA256 Mechanism = "SCRAM-SHA-256"
	ScramSHA512 Mechanism = "SCRAM-SHA-512"
	OAuthBearer Mechanism = "OAUTHBEARER"
)

// Mechanisms lists what is served, the strongest for passwords first.
func Mechanisms() []Mechanism { return []Mechanism{ScramSHA512, ScramSHA256, Plain, OAuthBearer} }

// Anonymous is the principal of clients that need not say who they are.
const Anonymous = "User:ANONYMOUS"

var (
	// ErrFailed is wrapped by every failure to authenticate. Its words are for the operator; a client is told nothing.
	ErrFailed = errors.New("authentication failed")
	// ErrMechanism says that a mechanism has no credentials of the kind asked for.
	ErrMechanism = errors.New("unknown SCRAM mechanism")
	// ErrCredential is wrapped by errors about credentials that are not acceptable.
	ErrCredential = errors.New("unacceptable credential")
	// ErrInvalid is wrapped by errors about rules, filters and quotas that make no sense.
	ErrInvalid = errors.New("invalid request")
)

func fail(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrFailed}, args...)...)
}

func unacceptable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCredential}, args...)...)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// Identity is who a client has proved to be.
type Identity struct {
	Principal string
	Expires   time.Time // zero: never
}

// Exchange is the server's side of an authentication. Step takes a message of the client and returns the answer, and the
// identity once it is proved; after an error the exchange is over.
type Exchange interface {
	Step(in []byte) (out []byte, id *Identity, err error)
}

// Authenticator starts exchanges. The zero value knows nobody.
type Authenticator struct {
	users    map[string][sha256.Size]byte
	secret   []byte
	scram    Credentials
	tokens   *Tokens
	fallback map[Mechanism]map[string]Credential
}

// NewAuthenticator returns an authenticator of users with passwords (PLAIN, and SCRAM unless a credential of theirs is
// found), of credentials (SCRAM) and of tokens (OAUTHBEARER); each may be nil.
func NewAuthenticator(users map[string]string, find Credentials, tokens *Tokens) (*Authenticator, error) {
	a := &Authenticator{users: map[string][sha256.Size]byte{}, secret: make([]byte, 32), scram: find, tokens: tokens,
		fallback: map[Mechanism]map[string]Credential{ScramSHA256: {}, ScramSHA512: {}}}
	rand.Read(a.secret)
	for user, password := range users {
		a.users[user] = a.digest(password)
		for m, credentials := range a.fallback {
			c, err := NewCredential(m, password)
			if err != nil {
				return nil, err
			}
			credentials[user] = c
		}
	}
	return a, nil
}

func (a *Authenticator) digest(password string) [sha256.Size]byte {
	return sha256.Sum256(append(a.secret[:len(a.secret):len(a.secret)], password...))
}

func (a *Authenticator) credential(m Mechanism, user string) (Credential, bool) {
	if a.scram != nil {
		if c, ok := a.scram(m, user); ok {
			return c, true
		}
	}
	c, ok := a.fallback[m][user]
	return c, ok
}

// Begin starts an exchange at a time.
func (a *Authenticator) Begin(m Mechanism, now time.Time) (Exchange, bool) {
	switch m {
	case Plain:
		return plain{a}, true
	case ScramSHA256, ScramSHA512:
		return &scram{mechanism: m, find: a.credential, secret: a.secret, nonce: newNonce}, true
	case OAuthBearer:
		if a.tokens != nil {
			return &bearer{tokens: a.tokens, now: now}, true
		}
	}
	return nil, false
}

func newNonce() string {
	b := make([]byte, 24)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// plain is RFC 4616: the password as it is. Only TLS keeps it from others.
type plain struct{ a *Authenticator }

func (p plain) Step(in []byte) ([]byte, *Identity, error) {
	parts := strings.Split(string(in), "\x00")
	if len(parts) != 3 || parts[1] == "" {
		return nil, nil, fail("the message of PLAIN is malformed")
	}
	authz, user, password := parts[0], parts[1], parts[2]
	if authz != "" && authz != user {
		return nil, nil, fail("user %q asks to be %q", user, authz)
	}
	want, known := p.a.users[user]
	got := p.a.digest(password)
	if equal := subtle.ConstantTimeCompare(want[:], got[:]) == 1; !known || !equal {
		return nil, nil, fail("user %q: the password is wrong or the user is not known", user)
	}
	return nil, &Identity{Principal: "User:" + user}, nil
}
