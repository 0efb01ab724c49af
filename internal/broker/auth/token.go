package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// tokenSkew is how far the clocks of issuer and broker may be apart (sasl.oauthbearer.clock.skew.seconds).
	tokenSkew = 30 * time.Second
	// keysAge is how long keys are used before they are fetched anew (sasl.oauthbearer.jwks.endpoint.refresh.ms), keysPause the
	// least time between two attempts, whoever asks.
	keysAge   = time.Hour
	keysPause = 10 * time.Second
)

// TokenConfig says which tokens are believed.
type TokenConfig struct {
	// Fetch returns the issuer's keys as a JSON Web Key Set (sasl.oauthbearer.jwks.endpoint.url).
	Fetch func() ([]byte, error)
	// Issuer and Audience are demanded of a token if set (sasl.oauthbearer.expected.issuer, .expected.audience).
	Issuer, Audience string
	// UserClaim is the claim that names the user (sasl.oauthbearer.sub.claim.name); default sub.
	UserClaim string
}

// Tokens checks JSON Web Tokens against the keys of their issuer.
type Tokens struct {
	cfg TokenConfig

	mu      sync.Mutex
	keys    map[string]crypto.PublicKey
	fetched time.Time
	tried   time.Time
	err     error
}

// NewTokens returns a checker of tokens.
func NewTokens(c TokenConfig) *Tokens {
	if c.UserClaim == "" {
		c.UserClaim = "sub"
	}
	return &Tokens{cfg: c}
}

// key returns the key of an id. One that is not known may be new: the set is fetched again, but not for every stranger.
func (t *Tokens) key(id string, now time.Time) (crypto.PublicKey, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.keys[id]
	if (!ok || now.Sub(t.fetched) > keysAge) && (t.tried.IsZero() || now.Sub(t.tried) >= keysPause) {
		t.tried = now
		if t.err = t.fetch(); t.err == nil {
			t.fetched = now
		}
		k, ok = t.keys[id]
	}
	switch {
	case ok:
		return k, nil
	case t.err != nil:
		return nil, t.err
	}
	return nil, fmt.Errorf("the issuer has no key %q", id)
}

func (t *Tokens) fetch() error {
	b, err := t.cfg.Fetch()
	if err != nil {
		return fmt.Errorf("the issuer's keys cannot be fetched: %w", err)
	}
	keys, err := parseKeys(b)
	if err == nil {
		t.keys = keys
	}
	return err
}

// check returns who a token says its bearer is.
func (t *Tokens) check(token string, now time.Time) (*Identity, error) {
	options := []jwt.ParserOption{
		// Signatures of public keys only: with a secret, whoever knows the public key could sign.
		jwt.WithValidMethods([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}),
		jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithLeeway(tokenSkew), jwt.WithExpirationRequired(),
	}
	if t.cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(t.cfg.Issuer))
	}
	if t.cfg.Audience != "" {
		options = append(options, jwt.WithAudience(t.cfg.Audience))
	}
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(token, claims, func(t2 *jwt.Token) (any, error) {
		id, _ := t2.Header["kid"].(string)
		return t.key(id, now)
	}, options...); err != nil {
		return nil, err
	}
	user, _ := claims[t.cfg.UserClaim].(string)
	if user == "" {
		return nil, fmt.Errorf("the token has no claim %s", t.cfg.UserClaim)
	}
	expires, err := claims.GetExpirationTime()
	if err != nil {
		return nil, err
	}
	return &Identity{Principal: "User:" + user, Expires: expires.Time}, nil
}

// parseKeys reads a JSON Web Key Set (RFC 7517). Keys of kinds not known are left out, as the RFC demands.
func parseKeys(b []byte) (map[string]crypto.PublicKey, error) {
	var set struct {
		Keys []struct {
			Kty, Kid, Use, Crv string
			N, E, X, Y         string
		}
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("the issuer's keys are no JSON Web Key Set: %w", err)
	}
	keys := map[string]crypto.PublicKey{}
	for _, k := range set.Keys {
		if k.Use != "" && k.Use != "sig" {
			continue
		}
		var bad error
		number := func(s string) *big.Int {
			raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
			if err != nil || len(raw) == 0 {
				bad = fmt.Errorf("key %q of the issuer is malformed", k.Kid)
			}
			return new(big.Int).SetBytes(raw)
		}
		switch {
		case k.Kty == "RSA":
			if n, e := number(k.N), number(k.E); bad == nil {
				if n.BitLen() < 2048 || !e.IsInt64() || e.Int64() < 3 || e.Int64() >= 1<<31 {
					bad = fmt.Errorf("key %q of the issuer is too weak", k.Kid)
				}
				keys[k.Kid] = &rsa.PublicKey{N: n, E: int(e.Int64())}
			}
		case k.Kty == "EC":
			curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
			if curve == nil {
				continue
			}
			if x, y := number(k.X), number(k.Y); bad == nil {
				size := (curve.Params().BitSize + 7) / 8
				if len(x.Bytes()) > size || len(y.Bytes()) > size {
					return nil, fmt.Errorf("key %q of the issuer is malformed", k.Kid)
				}
				point := append([]byte{4}, x.FillBytes(make([]byte, size))...)
				key, err := ecdsa.ParseUncompressedPublicKey(curve, append(point, y.FillBytes(make([]byte, size))...))
				if err != nil {
					bad = fmt.Errorf("key %q of the issuer: %w", k.Kid, err)
				}
				keys[k.Kid] = key
			}
		case k.Kty == "OKP" && k.Crv == "Ed25519":
			raw, err := base64.RawURLEncoding.DecodeString(k.X)
			if err != nil || len(raw) != ed25519.PublicKeySize {
				bad = fmt.Errorf("key %q of the issuer is malformed", k.Kid)
			}
			keys[k.Kid] = ed25519.PublicKey(raw)
		}
		if bad != nil {
			return nil, bad
		}
	}
	return keys, nil
}

// bearer is RFC 7628.
type bearer struct {
	tokens  *Tokens
	now     time.Time
	refused error
}

func (b *bearer) Step(in []byte) ([]byte, *Identity, error) {
	if b.refused != nil {
		// The client has read why: this message only says so.
		return nil, nil, b.refused
	}
	fields := bytes.Split(in, []byte{1})
	header := strings.Split(string(fields[0]), ",")
	if len(header) != 3 || header[0] != "n" && header[0] != "y" {
		return nil, nil, fail("the message of OAUTHBEARER has no header of a client without channel binding")
	}
	token := ""
	for _, f := range fields[1:] {
		if value, ok := strings.CutPrefix(string(f), "auth="); ok {
			if scheme, t, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "bearer") {
				token = strings.TrimSpace(t)
			}
		}
	}
	if token == "" {
		return nil, nil, fail("the message of OAUTHBEARER has no token")
	}
	id, err := b.tokens.check(token, b.now)
	if err == nil {
		if authz, ok := strings.CutPrefix(header[1], "a="); ok && "User:"+authz != id.Principal {
			err = fmt.Errorf("%s asks to be %q", id.Principal, authz)
		}
	}
	if err != nil {
		b.refused = fail("%v", err)
		return []byte(`{"status":"invalid_token"}`), nil, nil
	}
	return nil, id, nil
}
