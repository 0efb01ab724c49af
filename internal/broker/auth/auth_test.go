package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The example of RFC 7677, section 3.
func TestScramRFC(t *testing.T) {
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	credential := func(m Mechanism, user string) (Credential, bool) {
		c, err := newCredential(m, "pencil", salt, 4096)
		return c, err == nil && user == "user"
	}
	s := &scram{mechanism: ScramSHA256, find: credential, nonce: func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }}
	first, id, err := s.Step([]byte("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"))
	if want := "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"; err != nil || id != nil || string(first) != want {
		t.Fatalf("%s %v %v", first, id, err)
	}
	last, id, err := s.Step([]byte("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
	if err != nil || id == nil || id.Principal != "User:user" || string(last) != "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" {
		t.Fatalf("%s %+v %v", last, id, err)
	}
	if _, _, err := s.Step(nil); err == nil {
		t.Error("an exchange has two steps")
	}
}

func TestScramRefuses(t *testing.T) {
	a, err := NewAuthenticator(map[string]string{"alice": "secret"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, first := range map[string]string{
		"nothing":               "",
		"channel binding":       "p=tls-unique,,n=alice,r=x",
		"no nonce":              "n,,n=alice",
		"an empty nonce":        "n,,n=alice,r=",
		"another's name":        "n,a=bob,n=alice,r=x",
		"a name badly escaped":  "n,,n=al=ice,r=x",
		"a delegation token":    "n,,n=alice,r=x,tokenauth=true",
		"an unknown attribute?": "x,,n=alice,r=x",
	} {
		e, _ := a.Begin(ScramSHA512, time.Time{})
		if _, _, err := e.Step([]byte(first)); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Somebody unknown is asked as if known, always with the same salt, and learns nothing before the end.
	var salts []string
	for range 2 {
		e, _ := a.Begin(ScramSHA256, time.Time{})
		out, _, err := e.Step([]byte("n,,n=nobody,r=x"))
		if err != nil {
			t.Fatal(err)
		}
		salts = append(salts, strings.Split(string(out), ",")[1])
		nonce := strings.TrimPrefix(strings.Split(string(out), ",")[0], "r=")
		if _, id, err := e.Step([]byte("c=biws,r=" + nonce + ",p=" + base64.StdEncoding.EncodeToString(make([]byte, 32)))); !errors.Is(err, ErrFailed) || id != nil {
			t.Errorf("an unknown user: %v %v", id, err)
		}
	}
	if salts[0] != salts[1] {
		t.Errorf("salts of an unknown user: %v", salts)
	}
}

func TestSaltedCredential(t *testing.T) {
	for what, err := range map[string]error{
		"few iterations":  errOf(SaltedCredential(ScramSHA256, []byte("s"), []byte("p"), 4095)),
		"many iterations": errOf(SaltedCredential(ScramSHA256, []byte("s"), []byte("p"), 16385)),
		"no salt":         errOf(SaltedCredential(ScramSHA256, nil, []byte("p"), 4096)),
		"no mechanism":    errOf(SaltedCredential(Plain, []byte("s"), []byte("p"), 4096)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func errOf(_ Credential, err error) error { return err }

func TestPlain(t *testing.T) {
	a, _ := NewAuthenticator(map[string]string{"alice": "secret"}, nil, nil)
	for in, want := range map[string]string{
		"\x00alice\x00secret":       "User:alice",
		"alice\x00alice\x00secret":  "User:alice",
		"bob\x00alice\x00secret":    "",
		"\x00alice\x00wrong":        "",
		"\x00bob\x00secret":         "",
		"\x00bob\x00":               "",
		"\x00\x00":                  "",
		"alice secret":              "",
		"\x00alice\x00secret\x00no": "",
	} {
		e, _ := a.Begin(Plain, time.Time{})
		_, id, err := e.Step([]byte(in))
		if got := id != nil && err == nil; got != (want != "") || got && id.Principal != want {
			t.Errorf("%q: %+v %v", in, id, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells a password: %v", in, err)
		}
	}
}

type issuer struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	ed  ed25519.PrivateKey
}

func newIssuer(t *testing.T) issuer {
	r, err1 := rsa.GenerateKey(rand.Reader, 2048)
	e, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, d, err3 := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return issuer{r, e, d}
}

func (i issuer) keys() ([]byte, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	point, err := i.ec.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"keys": []map[string]string{
		{"kty": "RSA", "kid": "r", "n": b64(i.rsa.N.Bytes()), "e": b64(big.NewInt(int64(i.rsa.E)).Bytes())},
		{"kty": "EC", "kid": "e", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
		{"kty": "OKP", "kid": "d", "crv": "Ed25519", "x": b64(i.ed.Public().(ed25519.PublicKey))},
		{"kty": "oct", "kid": "s", "k": b64([]byte("secret"))},
	}})
}

func TestTokens(t *testing.T) {
	is := newIssuer(t)
	now := time.Unix(1_700_000_000, 0)
	fetches := 0
	tokens := NewTokens(TokenConfig{Issuer: "us", Audience: "kafka", Fetch: func() ([]byte, error) { fetches++; return is.keys() }})
	claims := func(edit map[string]any) jwt.MapClaims {
		c := jwt.MapClaims{"sub": "alice", "iss": "us", "aud": "kafka", "exp": now.Add(time.Minute).Unix()}
		for k, v := range edit {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	sign := func(m jwt.SigningMethod, kid string, key any, c jwt.MapClaims) string {
		tok := jwt.NewWithClaims(m, c)
		tok.Header["kid"] = kid
		s, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	good := claims(nil)
	for _, c := range []struct {
		what, token string
		ok          bool
	}{
		{"RSA", sign(jwt.SigningMethodRS256, "r", is.rsa, good), true},
		{"PSS", sign(jwt.SigningMethodPS256, "r", is.rsa, good), true},
		{"EC", sign(jwt.SigningMethodES256, "e", is.ec, good), true},
		{"Ed25519", sign(jwt.SigningMethodEdDSA, "d", is.ed, good), true},
		{"expired within the skew", sign(jwt.SigningMethodRS256, "r", is.rsa, claims(map[string]any{"exp": now.Add(-20 * time.Second).Unix()})), true},
		{"expired", sign(jwt.SigningMethodRS256, "r", is.rsa, claims(map[string]any{"exp": now.Add(-time.Minute).Unix()})), false},
		{"without an end", sign(jwt.SigningMethodRS256, "r", is.rsa, claims(map[string]any{"exp": nil})), false},
		{"not yet", sign(jwt.SigningMethodRS256, "r", is.rsa, claims(map[string]any{"nbf": now.Add(time.Hour).Unix()})), false},
		{"of another issuer", sign(jwt.SigningMethodRS256, "r", is.rsa, claims(map[string]any{"iss": "them"})), false},
		{"for another audience", sign(jwt.SigningMethodRS256, "r", is.rsa, claims(map[string]any{"aud": "mail"})), false},
		{"of nobody", sign(jwt.SigningMethodRS256, "r", is.rsa, claims(map[string]any{"sub": nil})), false},
		{"unsigned", sign(jwt.SigningMethodNone, "r", jwt.UnsafeAllowNoneSignatureType, good), false},
		{"signed with the public key as a secret", sign(jwt.SigningMethodHS256, "r", is.rsa.N.Bytes(), good), false},
		{"with another kind of key", sign(jwt.SigningMethodES256, "r", is.ec, good), false},
		{"with a key not known", sign(jwt.SigningMethodRS256, "x", is.rsa, good), false},
		{"garbage", "a.b.c", false},
	} {
		b := &bearer{tokens: tokens, now: now}
		out, id, err := b.Step([]byte("n,,\x01auth=Bearer " + c.token + "\x01\x01"))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
		} else if got := id != nil && id.Principal == "User:alice"; got != c.ok {
			t.Errorf("%s: %v, want %v (%v)", c.what, got, c.ok, b.refused)
		} else if !c.ok {
			if !strings.Contains(string(out), "invalid_token") {
				t.Errorf("%s: the client is told %q", c.what, out)
			}
			if _, _, err := b.Step([]byte{1}); !errors.Is(err, ErrFailed) {
				t.Errorf("%s: it goes on: %v", c.what, err)
			}
		}
	}
	if fetches > 2 {
		t.Errorf("keys were fetched %d times: strangers cost requests", fetches)
	}
}

func TestNames(t *testing.T) {
	raw, err := asn1.Marshal(pkix.Name{CommonName: "Alice", OrganizationalUnit: []string{"Sales"}, Organization: []string{"Corp, Inc"}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{RawSubject: raw}
	for rules, want := range map[string]string{
		"":                                  `User:CN=Alice,OU=Sales,O=Corp\, Inc`,
		"DEFAULT":                           `User:CN=Alice,OU=Sales,O=Corp\, Inc`,
		`RULE:^CN=(.*?),.*$/$1/`:            "User:Alice",
		`RULE:CN=(.*?),OU=(.*?),.*/$1@$2/L`: "User:alice@sales",
		`RULE:nobody/x/, RULE:CN=(\w+).*/$1/U, DEFAULT`: "User:ALICE",
		`RULE:nobody/x/`: "",
	} {
		n, err := ParseNames(rules)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := n.Principal(cert); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v, want %q", rules, got, err, want)
		}
	}
	for _, bad := range []string{"RULE:x", "RULE:(/x/", "whatever", "RULE:a/b/c", "DEFAULT RULE"} {
		if _, err := ParseNames(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestQuotas(t *testing.T) {
	q := NewQuotas()
	now := time.Unix(1000, 0)
	if q.Use("u", "c", ProducerByteRate, 1e9, now) != 0 {
		t.Error("without a quota nobody waits")
	}
	q.Set(Entity{User: "u"}, map[string]float64{ProducerByteRate: 1000})
	q.Set(Entity{User: Default}, map[string]float64{ProducerByteRate: 10})
	q.Set(Entity{User: "u", Client: "fast"}, map[string]float64{ProducerByteRate: 1e6})
	// Over ten seconds the rate is kept, however it is used.
	if w := q.Use("u", "c", ProducerByteRate, 10_000, now); w != 0 {
		t.Errorf("what ten seconds allow waits %v", w)
	}
	if w := q.Use("u", "other", ProducerByteRate, 5_000, now); w != 5*time.Second {
		t.Errorf("clients of a user share: %v", w)
	}
	if w := q.Use("u", "fast", ProducerByteRate, 1e6, now); w != 0 {
		t.Errorf("the most specific quota counts: %v", w)
	}
	if w := q.Use("v", "c", ProducerByteRate, 200, now); w != 10*time.Second {
		t.Errorf("the default: %v", w)
	}
	if w := q.Use("w", "c", ProducerByteRate, 100, now); w != 0 {
		t.Errorf("users of a default do not share: %v", w)
	}
	if w := q.Use("u", "c", ConsumerByteRate, 1e9, now); w != 0 {
		t.Errorf("another quota: %v", w)
	}
	if w := q.Use("u", "c", ProducerByteRate, 1000, now.Add(12*time.Second)); w != 0 {
		t.Errorf("what is long ago is forgotten: %v", w)
	}
}

func TestCheckQuota(t *testing.T) {
	user, ip := Entity{User: "u"}, Entity{IP: "::1"}
	for _, c := range []struct {
		e     Entity
		quota string
		value float64
		ok    bool
	}{
		{user, ProducerByteRate, 1, true}, {user, ConsumerByteRate, 1 << 40, true}, {user, ControllerMutationRate, 0.5, true}, {user, RequestPercentage, 0.5, true},
		{user, ProducerByteRate, 1.5, false}, {user, ProducerByteRate, 0, false}, {user, ProducerByteRate, math.NaN(), false}, {user, ControllerMutationRate, math.Inf(1), false},
		{user, ConnectionCreationRate, 1, false}, {user, "", 1, false},
		{ip, ConnectionCreationRate, math.MaxInt32, true}, {ip, ConnectionCreationRate, math.MaxInt32 + 1, false}, {ip, ConnectionCreationRate, 1.5, false},
		{ip, ProducerByteRate, 1, false},
	} {
		if err := c.e.CheckQuota(c.quota, c.value); (err == nil) != c.ok {
			t.Errorf("%+v %s=%v: %v", c.e, c.quota, c.value, err)
		}
	}
	for _, e := range []Entity{{}, {User: "u", IP: "::1"}, {Client: "c", IP: Default}} {
		if e.Check() == nil {
			t.Errorf("%+v has quotas", e)
		}
	}
	for _, e := range []Entity{{User: Default}, {Client: "c"}, {User: "u", Client: Default}, {IP: Default}, {IP: "10.0.0.1"}, {IP: "localhost"}} {
		if err := e.Check(); err != nil {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

func TestMutations(t *testing.T) {
	q := NewQuotas()
	now := time.Unix(1000, 0)
	if _, ok := q.Mutate("u", "c", 1e9, true, now); !ok {
		t.Error("without a quota everything goes")
	}
	q.Set(Entity{User: "u"}, map[string]float64{ControllerMutationRate: 2})
	for i, x := range []struct {
		after  time.Duration
		n      float64
		strict bool
		wait   time.Duration
		ok     bool
	}{
		{0, 20, true, 0, true},
		{0, 6, true, 0, true}, // 2 were left
		{0, 1, true, 2 * time.Second, false},
		{time.Second, 1, true, time.Second, false},
		{0, 1, false, 1500 * time.Millisecond, true},
		{1500 * time.Millisecond, 4, true, 0, true},
		{time.Hour, 22, false, 0, true}, // no more than 22 gather
		{0, 1, false, 500 * time.Millisecond, true},
	} {
		now = now.Add(x.after)
		if wait, ok := q.Mutate("u", "c", x.n, x.strict, now); wait != x.wait || ok != x.ok {
			t.Errorf("step %d: %v %v, want %v %v", i, wait, ok, x.wait, x.ok)
		}
	}
}

func TestConnect(t *testing.T) {
	q := NewQuotas()
	now := time.Unix(1000, 0)
	q.Set(Entity{IP: Default}, map[string]float64{ConnectionCreationRate: 1})
	q.Set(Entity{IP: "10.0.0.1"}, map[string]float64{ConnectionCreationRate: 2})
	for ip, n := range map[string]int{"10.0.0.1": 20, "10.0.0.2": 10, "::1": 10} {
		for i := range n {
			if w := q.Connect(ip, now); w != 0 {
				t.Errorf("%s: connection %d waits %v", ip, i, w)
			}
		}
		want := 10 * time.Second / time.Duration(n)
		for range 3 { // what waits is not counted
			if w := q.Connect(ip, now); w != want {
				t.Errorf("%s waits %v, want %v", ip, w, want)
			}
		}
	}
	// Of several hosts that are one address the lowest rate counts, whatever came last; a host that moves takes its rate along.
	limit := func(host, address string, rate float64) {
		limits := map[string]float64{ConnectionCreationRate: rate}
		if rate == 0 {
			limits = nil
		}
		q.SetAt(Entity{IP: host}, address, limits)
	}
	limit("a.example", "10.0.0.1", 3)
	limit("b.example", "10.0.0.3", 4)
	limit("a.example", "", 5)
	limit("unknown.example", "", 6)
	for i, step := range []struct {
		do   func()
		want map[string]float64
	}{
		{func() {}, map[string]float64{"10.0.0.1": 2, "10.0.0.2": 1, "10.0.0.3": 4}},
		{func() { q.Set(Entity{IP: "10.0.0.1"}, nil) }, map[string]float64{"10.0.0.1": 5, "10.0.0.3": 4}},
		{func() { limit("b.example", "10.0.0.1", 4) }, map[string]float64{"10.0.0.1": 4, "10.0.0.3": 1}},
		{func() { limit("a.example", "", 0); limit("b.example", "", 0) }, map[string]float64{"10.0.0.1": 1}},
	} {
		step.do()
		for ip, rate := range step.want {
			n := 0
			for now = now.Add(time.Minute); q.Connect(ip, now) == 0; n++ {
			}
			if n != int(10*rate) {
				t.Errorf("step %d: %s has %d connections in ten seconds, want %v", i, ip, n, 10*rate)
			}
		}
	}
}

// The long-run rate of somebody who obeys is the quota.
func TestQuotaRate(t *testing.T) {
	q := NewQuotas()
	q.Set(Entity{Client: "c"}, map[string]float64{ConsumerByteRate: 1000})
	now, total := time.Unix(0, 0), 0.0
	for now.Unix() < 200 {
		total += 300
		now = now.Add(time.Millisecond + q.Use("u", "c", ConsumerByteRate, 300, now))
	}
	if rate := total / 200; rate < 900 || rate > 1150 {
		t.Errorf("%.0f bytes a second pass a quota of 1000", rate)
	}
}

func FuzzExchange(f *testing.F) {
	a, err := NewAuthenticator(map[string]string{"alice": "secret"}, nil, NewTokens(TokenConfig{Fetch: func() ([]byte, error) { return []byte("{}"), nil }}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("n,,n=alice,r=x"), []byte("c=biws,r=x,p=AAAA"))
	f.Add([]byte("\x00alice\x00secre"), []byte{})
	f.Add([]byte("n,,\x01auth=Bearer a.b.c\x01\x01"), []byte{1})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		for _, m := range Mechanisms() {
			e, _ := a.Begin(m, time.Unix(1, 0))
			_, id, err := e.Step(one)
			if err == nil && id == nil {
				_, id, _ = e.Step(two)
			}
			if id != nil && !strings.Contains(string(one), "secret") {
				t.Errorf("%s lets %q, %q in as %+v", m, one, two, id)
			}
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"RSA","n":"AQ","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) { parseKeys(b) })
}
