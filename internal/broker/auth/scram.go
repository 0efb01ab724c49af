package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"strconv"
	"strings"
)

// The iterations of a SCRAM credential: the fewest that are safe, and the most that Kafka takes.
const (
	MinIterations = 4096
	MaxIterations = 16384
)

// Credential is what is kept of a password for SCRAM (RFC 5802): enough to check a proof, not to make one.
type Credential struct {
	Salt       []byte `json:"salt"`
	StoredKey  []byte `json:"stored_key"`
	ServerKey  []byte `json:"server_key"`
	Iterations int    `json:"iterations"`
}

// hash returns the hash function of a SCRAM mechanism.
func (m Mechanism) hash() func() hash.Hash {
	if m == ScramSHA512 {
		return sha512.New
	}
	return sha256.New
}

func mac(h func() hash.Hash, key []byte, parts ...string) []byte {
	m := hmac.New(h, key)
	for _, p := range parts {
		m.Write([]byte(p))
	}
	return m.Sum(nil)
}

// SaltedCredential makes a credential of a password that was salted and iterated by whoever sets it, so that the broker
// never sees it.
func SaltedCredential(m Mechanism, salt, salted []byte, iterations int) (Credential, error) {
	if m != ScramSHA256 && m != ScramSHA512 {
		return Credential{}, ErrMechanism
	}
	switch {
	case iterations < MinIterations:
		return Credential{}, unacceptable("%d iterations are too few, the least is %d", iterations, MinIterations)
	case iterations > MaxIterations:
		return Credential{}, unacceptable("%d iterations are too many, the most are %d", iterations, MaxIterations)
	case len(salt) == 0 || len(salted) == 0:
		return Credential{}, unacceptable("the salt and the salted password must not be empty")
	}
	h := m.hash()
	stored := h()
	stored.Write(mac(h, salted, "Client Key"))
	return Credential{Salt: salt, StoredKey: stored.Sum(nil), ServerKey: mac(h, salted, "Server Key"), Iterations: iterations}, nil
}

// NewCredential makes a credential of a password, with a salt of its own.
func NewCredential(m Mechanism, password string) (Credential, error) {
	salt := make([]byte, 24)
	rand.Read(salt)
	return newCredential(m, password, salt, MinIterations)
}

func newCredential(m Mechanism, password string, salt []byte, iterations int) (Credential, error) {
	h := m.hash()
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		return Credential{}, err
	}
	return SaltedCredential(m, salt, salted, iterations)
}

// Credentials finds the credential of a user.
type Credentials func(m Mechanism, user string) (Credential, bool)

// scram is the server's side of one exchange.
type scram struct {
	mechanism Mechanism
	find      Credentials
	// secret salts users that do not exist, so that nobody learns which do.
	secret []byte
	nonce  func() string

	step       int
	user       string
	known      bool
	credential Credential
	header     string // GS2, as the client sent it
	bare       string // the client's first message without it
	first      string // ours
	nonces     string // the client's and ours
}

func (s *scram) Step(in []byte) ([]byte, *Identity, error) {
	s.step++
	switch s.step {
	case 1:
		out, err := s.begin(string(in))
		return []byte(out), nil, err
	case 2:
		return s.finish(string(in))
	}
	return nil, nil, fail("the exchange is over")
}

func (s *scram) begin(in string) (string, error) {
	// gs2-header = "n" or "y", ",", ["a=" authzid], ","
	parts := strings.SplitN(in, ",", 3)
	if len(parts) != 3 || parts[0] != "n" && parts[0] != "y" {
		return "", fail("the first message has no header of a client without channel binding")
	}
	s.header, s.bare = in[:len(in)-len(parts[2])], parts[2]
	attributes := strings.Split(s.bare, ",")
	if len(attributes) < 2 || !strings.HasPrefix(attributes[0], "n=") || !strings.HasPrefix(attributes[1], "r=") {
		return "", fail("the first message names no user and no nonce")
	}
	user, ok := scramName(attributes[0][2:])
	if !ok || user == "" {
		return "", fail("the user's name is not encoded as SCRAM demands")
	}
	if authz, ok := strings.CutPrefix(parts[1], "a="); ok {
		if name, ok := scramName(authz); !ok || name != user {
			return "", fail("user %q asks to be %q", user, authz)
		}
	} else if parts[1] != "" {
		return "", fail("the header of the first message is malformed")
	}
	for _, a := range attributes[2:] {
		if a == "tokenauth=true" {
			return "", fail("delegation tokens are not served")
		}
	}
	nonce := attributes[1][2:]
	if nonce == "" {
		return "", fail("the client's nonce is empty")
	}
	s.user, s.nonces = user, nonce+s.nonce()
	if s.credential, s.known = s.find(s.mechanism, user); !s.known {
		s.credential = Credential{Salt: mac(sha256.New, s.secret, user)[:24], Iterations: MinIterations}
	}
	s.first = "r=" + s.nonces + ",s=" + base64.StdEncoding.EncodeToString(s.credential.Salt) + ",i=" + strconv.Itoa(s.credential.Iterations)
	return s.first, nil
}

func (s *scram) finish(in string) ([]byte, *Identity, error) {
	i := strings.LastIndex(in, ",p=")
	if i < 0 {
		return nil, nil, fail("the last message has no proof")
	}
	without := in[:i]
	proof, err := base64.StdEncoding.DecodeString(in[i+3:])
	attributes := strings.Split(without, ",")
	if err != nil || len(attributes) < 2 || attributes[0] != "c="+base64.StdEncoding.EncodeToString([]byte(s.header)) || attributes[1] != "r="+s.nonces {
		return nil, nil, fail("the last message does not belong to the first")
	}
	if !s.known {
		return nil, nil, fail("user %q has no %s credential", s.user, s.mechanism)
	}
	h := s.mechanism.hash()
	message := []string{s.bare, ",", s.first, ",", without}
	key := mac(h, s.credential.StoredKey, message...)
	if len(proof) != len(key) {
		return nil, nil, fail("user %q: the proof is wrong", s.user)
	}
	subtle.XORBytes(key, key, proof)
	stored := h()
	stored.Write(key)
	if subtle.ConstantTimeCompare(stored.Sum(nil), s.credential.StoredKey) != 1 {
		return nil, nil, fail("user %q: the password is wrong", s.user)
	}
	signature := mac(h, s.credential.ServerKey, message...)
	return []byte("v=" + base64.StdEncoding.EncodeToString(signature)), &Identity{Principal: "User:" + s.user}, nil
}

// scramName decodes a name in which comma and equals sign are escaped.
func scramName(s string) (string, bool) {
	for i := 0; i < len(s); i++ {
		if s[i] == '=' && !strings.HasPrefix(s[i:], "=2C") && !strings.HasPrefix(s[i:], "=3D") {
			return "", false
		}
	}
	return strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s), true
}
