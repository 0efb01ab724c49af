package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/golang-jwt/jwt/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/moldau/moldau/internal/broker/auth"
)

// authority issues certificates.
type authority struct {
	t    testing.TB
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key, a.cert = a.sign("authority", nil)
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// sign issues a certificate and writes NAME.pem and NAME.key.
func (a *authority) sign(name string, parent *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"Test"}}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: parent == nil, BasicConstraintsValid: true}
	signer := a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err := errors.Join(err,
		os.WriteFile(a.file(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(a.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}), 0o600)); err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

func (a *authority) issue(name string) { a.sign(name, a.cert) }

// client returns a configuration that trusts the authority, with a certificate of its own unless name is "".
func (a *authority) client(name string) *tls.Config {
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AddCert(a.cert)
	if name != "" {
		cert, err := tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+".key"))
		if err != nil {
			a.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c
}

func remote(t testing.TB, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.AllowAutoTopicCreation(), kgo.RetryTimeout(10 * time.Second), kgo.RequestRetries(1),
		kgo.MetadataMinAge(10 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond })}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func password(name, pass string) kgo.Opt {
	return kgo.SASL(scram.Auth{User: name, Pass: pass}.AsSha512Mechanism())
}

// Every way of saying who one is, over TLS and without; each listener tells its clients of itself.
func TestAuthentication(t *testing.T) {
	ca := newAuthority(t)
	ca.issue("broker")
	ca.issue("carol")
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	keys, _ := json.Marshal(map[string]any{"keys": []map[string]string{{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))}}})
	if err := os.WriteFile(ca.file("keys.json"), keys, 0o600); err != nil {
		t.Fatal(err)
	}
	certs := TLS{Cert: ca.file("broker.pem"), Key: ca.file("broker.key")}
	mutual := certs
	mutual.ClientCA, mutual.PrincipalRules = ca.file("authority.pem"), `RULE:^CN=(\w+).*$/$1/`
	b := start(t, func(c *Config) {
		c.Listeners = []Listener{
			{Address: "127.0.0.1:0", SASL: auth.Mechanisms()},
			{Address: "127.0.0.1:0", TLS: &certs, SASL: auth.Mechanisms()},
			{Address: "127.0.0.1:0", TLS: &mutual},
		}
		c.Users = map[string]string{"alice": "secret"}
		c.OAuth = &OAuth{Keys: ca.file("keys.json")}
		c.ACLs, c.SuperUsers = true, []string{"User:alice", "User:bob", "User:carol"}
	})
	adm := kadm.NewClient(client(t, b))
	if _, err := adm.AlterUserSCRAMs(testContext(t), nil, []kadm.UpsertSCRAM{
		{User: "bob", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "hidden"},
		{User: "bob", Mechanism: kadm.ScramSha512, Iterations: 8192, Password: "hidden"},
	}); err != nil {
		t.Fatal(err)
	}
	token := func(exp time.Duration) sasl.Mechanism {
		tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"sub": "bob", "exp": time.Now().Add(exp).Unix()})
		tok.Header["kid"] = "k"
		s, _ := tok.SignedString(key)
		return oauth.Auth{Token: s}.AsMechanism()
	}
	for _, c := range []struct {
		what     string
		listener int
		opts     []kgo.Opt
		ok       bool
	}{
		{"PLAIN", 0, []kgo.Opt{kgo.SASL(saslplain.Auth{User: "alice", Pass: "secret"}.AsMechanism())}, true},
		{"PLAIN, wrong", 0, []kgo.Opt{kgo.SASL(saslplain.Auth{User: "alice", Pass: "Secret"}.AsMechanism())}, false},
		{"PLAIN, SCRAM's user", 0, []kgo.Opt{kgo.SASL(saslplain.Auth{User: "bob", Pass: "hidden"}.AsMechanism())}, false},
		{"SCRAM-256 of the file", 0, []kgo.Opt{kgo.SASL(scram.Auth{User: "alice", Pass: "secret"}.AsSha256Mechanism())}, true},
		{"SCRAM-256", 0, []kgo.Opt{kgo.SASL(scram.Auth{User: "bob", Pass: "hidden"}.AsSha256Mechanism())}, true},
		{"SCRAM-512", 1, []kgo.Opt{password("bob", "hidden"), kgo.DialTLSConfig(ca.client(""))}, true},
		{"SCRAM-512, wrong", 1, []kgo.Opt{password("bob", "Hidden"), kgo.DialTLSConfig(ca.client(""))}, false},
		{"SCRAM-512, nobody", 1, []kgo.Opt{password("eve", "hidden"), kgo.DialTLSConfig(ca.client(""))}, false},
		{"token", 1, []kgo.Opt{kgo.SASL(token(time.Minute)), kgo.DialTLSConfig(ca.client(""))}, true},
		{"token, old", 1, []kgo.Opt{kgo.SASL(token(-time.Minute)), kgo.DialTLSConfig(ca.client(""))}, false},
		{"nothing where SASL is asked for", 0, nil, false},
		{"plaintext where TLS is", 1, []kgo.Opt{password("bob", "hidden")}, false},
		{"certificate", 2, []kgo.Opt{kgo.DialTLSConfig(ca.client("carol"))}, true},
		{"no certificate", 2, []kgo.Opt{kgo.DialTLSConfig(ca.client(""))}, false},
		{"certificate of another", 2, []kgo.Opt{kgo.DialTLSConfig(ca.client("broker"))}, false}, // no super user
	} {
		ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
		cl := remote(t, b.Addrs()[c.listener], c.opts...)
		err := cl.Ping(ctx)
		if err == nil {
			err = cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("v")}).FirstErr()
		}
		cancel()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// Credentials and rules are what they were after a restart; described, they tell no secret.
func TestSecurityIsKept(t *testing.T) {
	fs := vfs.NewMem()
	secure := func(c *Config) { c.ACLs = true }
	b := start(t, onFS(fs), secure)
	adm := kadm.NewClient(client(t, b))
	ctx := testContext(t)
	if rs, err := adm.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: "bob", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "hidden"}}); err != nil || rs.Error() != nil {
		t.Fatal(err, rs.Error())
	}
	rules := kadm.NewACLs().Topics("orders").Groups("readers").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpRead).Allow("User:bob").AllowHosts("*")
	if rs, err := adm.CreateACLs(ctx, rules); err != nil || len(rs) != 2 || rs[0].Err != nil {
		t.Fatal(err, rs)
	}
	alter := func(b *Broker, user *string, op kmsg.AlterClientQuotasRequestEntryOp) int16 {
		return ask[*kmsg.AlterClientQuotasResponse](dialRaw(t, b), 1, &kmsg.AlterClientQuotasRequest{Entries: []kmsg.AlterClientQuotasRequestEntry{{
			Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "user", Name: user}}, Ops: []kmsg.AlterClientQuotasRequestEntryOp{op},
		}}}).Entries[0].ErrorCode
	}
	wantCode(t, "a quota", alter(b, ptr("bob"), kmsg.AlterClientQuotasRequestEntryOp{Key: "producer_byte_rate", Value: 1000}), nil)
	wantCode(t, "a default quota", alter(b, nil, kmsg.AlterClientQuotasRequestEntryOp{Key: "consumer_byte_rate", Value: 1000}), nil)
	wantCode(t, "a quota not served", alter(b, nil, kmsg.AlterClientQuotasRequestEntryOp{Key: "leader_byte_rate", Value: 1000}), kerr.InvalidRequest)
	b.Close()

	b = start(t, onFS(fs), secure)
	adm = kadm.NewClient(client(t, b))
	users, err := adm.DescribeUserSCRAMs(ctx)
	if err != nil || len(users["bob"].CredInfos) != 1 || users["bob"].CredInfos[0].Iterations != 4096 {
		t.Errorf("%+v %v", users, err)
	}
	if nobody, err := adm.DescribeUserSCRAMs(ctx, "eve"); err != nil || !errors.Is(nobody["eve"].Err, kerr.ResourceNotFound) {
		t.Errorf("%+v %v", nobody, err)
	}
	everything := kadm.NewACLs().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Operations().Allow().Deny().AllowHosts().DenyHosts()
	found, err := adm.DescribeACLs(ctx, everything)
	n := 0
	for _, f := range found {
		n += len(f.Described)
	}
	if err != nil || n != 2 {
		t.Errorf("%d rules: %+v %v", n, found, err)
	}
	if none := ask[*kmsg.DescribeClientQuotasResponse](dialRaw(t, b), 1, &kmsg.DescribeClientQuotasRequest{Components: []kmsg.DescribeClientQuotasRequestComponent{{EntityType: "user", Match: ptr("nobody")}}}); none.Entries == nil {
		t.Error("no quotas are null, which Java cannot read")
	}
	quotas, err := adm.DescribeClientQuotas(ctx, false, nil)
	if err != nil || len(quotas) != 2 {
		t.Errorf("%+v %v", quotas, err)
	}
	if _, err := adm.DeleteACLs(ctx, everything); err != nil {
		t.Fatal(err)
	}
	if found, err := adm.DescribeACLs(ctx, everything); err != nil || len(found) > 0 && len(found[0].Described) > 0 {
		t.Errorf("deleted rules: %+v %v", found, err)
	}
}

// What rules allow goes, and nothing else; what one may not see one does not see.
func TestACLs(t *testing.T) {
	b := start(t, func(c *Config) {
		c.Listeners = []Listener{{Address: "127.0.0.1:0", SASL: []auth.Mechanism{auth.ScramSHA512}}}
		c.Users = map[string]string{"alice": "a", "bob": "b"}
		c.ACLs, c.SuperUsers = true, []string{"User:root"}
	})
	ctx := testContext(t)
	root := kadm.NewClient(client(t, b))
	if _, err := root.CreateTopics(ctx, 1, 1, nil, "orders", "secret"); err != nil {
		t.Fatal(err)
	}
	for _, rule := range []*kadm.ACLBuilder{
		kadm.NewACLs().Topics("orders").Operations(kadm.OpWrite).Allow("User:alice"),
		kadm.NewACLs().Topics("ord").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpRead).Allow("User:bob"),
		kadm.NewACLs().Groups("*").Operations(kadm.OpRead).Allow("User:bob"),
		kadm.NewACLs().TransactionalIDs("tx").Operations(kadm.OpWrite).Allow("User:alice"),
	} {
		if rs, err := root.CreateACLs(ctx, rule.AllowHosts("*")); err != nil || len(rs) == 0 || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
	}
	alice, bob := remote(t, b.Addr(), password("alice", "a")), remote(t, b.Addr(), password("bob", "b"))
	produce := func(cl *kgo.Client, topic string) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr()
	}
	if err := produce(alice, "orders"); err != nil {
		t.Errorf("alice writes orders: %v", err)
	}
	if err := produce(alice, "secret"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("alice writes secret: %v", err)
	}
	if err := produce(alice, "made-up"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("alice creates a topic: %v", err)
	}
	if err := produce(bob, "orders"); err == nil {
		t.Error("bob writes orders")
	}
	reader := remote(t, b.Addr(), password("bob", "b"), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if fs := reader.PollFetches(ctx); fs.NumRecords() != 1 {
		t.Errorf("bob reads orders: %v", fs.Errors())
	}
	if err := reader.CommitRecords(ctx); err != nil {
		t.Errorf("bob commits: %v", err)
	}
	topics, err := kadm.NewClient(bob).ListTopics(ctx)
	if err != nil || !topics.Has("orders") || topics.Has("secret") {
		t.Errorf("bob sees %v %v", topics.Names(), err)
	}
	for what, c := range map[string]struct {
		err  error
		want *kerr.Error
	}{
		"alice joins a group": {func() error {
			_, err := kadm.NewClient(alice).FetchOffsets(ctx, "g")
			return err
		}(), kerr.GroupAuthorizationFailed},
		"alice deletes a topic": {func() error {
			r, err := kadm.NewClient(alice).DeleteTopic(ctx, "orders")
			return errors.Join(err, r.Err)
		}(), kerr.TopicAuthorizationFailed},
		"bob sees rules": {func() error {
			rs, err := kadm.NewClient(bob).DescribeACLs(ctx, kadm.NewACLs().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Operations().Allow().AllowHosts())
			if err == nil && len(rs) > 0 {
				err = rs[0].Err
			}
			return err
		}(), kerr.ClusterAuthorizationFailed},
		"bob makes users": {func() error {
			rs, err := kadm.NewClient(bob).AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: "x", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "x"}})
			return errors.Join(err, rs.Error())
		}(), kerr.ClusterAuthorizationFailed},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", what, c.err)
		}
	}
	// Who may make a topic learns nothing of its settings by that.
	if _, err := root.CreateACLs(ctx, kadm.NewACLs().Topics("hers").Operations(kadm.OpCreate).Allow("User:alice").AllowHosts("*")); err != nil {
		t.Fatal(err)
	}
	made, err := (&kmsg.CreateTopicsRequest{TimeoutMillis: 5000, Topics: []kmsg.CreateTopicsRequestTopic{{Topic: "hers", NumPartitions: 2, ReplicationFactor: 1}}}).RequestWith(ctx, alice)
	if err != nil || len(made.Topics) != 1 {
		t.Fatal(made, err)
	}
	if m := made.Topics[0]; m.ErrorCode != 0 || m.ConfigErrorCode != kerr.TopicAuthorizationFailed.Code || len(m.Configs) > 0 || m.NumPartitions != -1 || m.ReplicationFactor != -1 {
		t.Errorf("alice makes a topic: %+v", m)
	}
	begin := func(id string) error {
		tx := remote(t, b.Addr(), password("alice", "a"), kgo.TransactionalID(id))
		if err := tx.BeginTransaction(); err != nil {
			return err
		}
		err := produce(tx, "orders")
		return errors.Join(err, tx.EndTransaction(ctx, err == nil))
	}
	if err := begin("tx"); err != nil {
		t.Errorf("alice's transaction: %v", err)
	}
	if err := begin("other"); err == nil {
		t.Error("alice uses another's transactional id")
	}
	// What is denied is denied at once, to connections that are there already.
	if _, err := root.CreateACLs(ctx, kadm.NewACLs().Topics("orders").Operations(kadm.OpWrite).Deny("User:alice").DenyHosts("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := produce(alice, "orders"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("alice is denied: %v", err)
	}
}

// tcp connects like any client.
func tcp(t testing.TB, addr string) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &raw{t: t, nc: nc, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("test"))}
}

func (r *raw) ends() bool {
	_, err := io.ReadFull(r.nc, make([]byte, 1))
	var ne net.Error
	return err != nil && !(errors.As(err, &ne) && ne.Timeout())
}

// Before authentication little is taken.
func TestBeforeAuthentication(t *testing.T) {
	b := start(t, func(c *Config) {
		c.Listeners = []Listener{{Address: "127.0.0.1:0", SASL: []auth.Mechanism{auth.Plain}}}
		c.Users = map[string]string{"alice": "a"}
		c.MaxReauth = time.Hour
	})
	asks := tcp(t, b.Addr())
	if r := ask[*kmsg.ApiVersionsResponse](asks, 3, &kmsg.ApiVersionsRequest{ClientSoftwareName: "a", ClientSoftwareVersion: "1"}); r.ErrorCode != 0 {
		t.Errorf("versions may be asked for: %d", r.ErrorCode)
	}
	h := ask[*kmsg.SASLHandshakeResponse](asks, 1, &kmsg.SASLHandshakeRequest{Mechanism: "GSSAPI"})
	if wantCode(t, "a mechanism not served", h.ErrorCode, kerr.UnsupportedSaslMechanism); len(h.SupportedMechanisms) != 1 || h.SupportedMechanisms[0] != "PLAIN" {
		t.Errorf("served: %v", h.SupportedMechanisms)
	}
	wantCode(t, "bytes before a handshake", ask[*kmsg.SASLAuthenticateResponse](asks, 2, &kmsg.SASLAuthenticateRequest{SASLAuthBytes: []byte("x")}).ErrorCode, kerr.IllegalSaslState)
	wantCode(t, "a handshake", ask[*kmsg.SASLHandshakeResponse](asks, 1, &kmsg.SASLHandshakeRequest{Mechanism: "PLAIN"}).ErrorCode, nil)
	ok := ask[*kmsg.SASLAuthenticateResponse](asks, 2, &kmsg.SASLAuthenticateRequest{SASLAuthBytes: []byte("\x00alice\x00a")})
	if wantCode(t, "a password", ok.ErrorCode, nil); ok.SessionLifetimeMillis != time.Hour.Milliseconds() {
		t.Errorf("a session of %d ms", ok.SessionLifetimeMillis)
	}
	if m := ask[*kmsg.MetadataResponse](asks, 9, &kmsg.MetadataRequest{}); len(m.Brokers) != 1 {
		t.Error("no metadata after authentication")
	}

	early := tcp(t, b.Addr())
	early.send(&kmsg.MetadataRequest{Version: 9})
	if !early.ends() {
		t.Error("a stranger may ask for metadata")
	}
	large := tcp(t, b.Addr())
	large.nc.Write(binary.BigEndian.AppendUint32(nil, 600<<10))
	if !large.ends() {
		t.Error("a stranger may send 600 KiB")
	}
	wrong := tcp(t, b.Addr())
	ask[*kmsg.SASLHandshakeResponse](wrong, 1, &kmsg.SASLHandshakeRequest{Mechanism: "PLAIN"})
	no := ask[*kmsg.SASLAuthenticateResponse](wrong, 2, &kmsg.SASLAuthenticateRequest{SASLAuthBytes: []byte("\x00alice\x00b")})
	if wantCode(t, "a wrong password", no.ErrorCode, kerr.SaslAuthenticationFailed); !wrong.ends() {
		t.Error("it may be tried again and again")
	}
}

// A session that is over takes nothing but another authentication, as the same user.
func TestReauthentication(t *testing.T) {
	var now clock
	b := start(t, now.use, func(c *Config) {
		c.Listeners = []Listener{{Address: "127.0.0.1:0", SASL: []auth.Mechanism{auth.Plain}}}
		c.Users = map[string]string{"alice": "a", "bob": "b"}
		c.MaxReauth = time.Minute
	})
	login := func(r *raw, user, pass string) int16 {
		ask[*kmsg.SASLHandshakeResponse](r, 1, &kmsg.SASLHandshakeRequest{Mechanism: "PLAIN"})
		return ask[*kmsg.SASLAuthenticateResponse](r, 2, &kmsg.SASLAuthenticateRequest{SASLAuthBytes: []byte("\x00" + user + "\x00" + pass)}).ErrorCode
	}
	again, gone, other := tcp(t, b.Addr()), tcp(t, b.Addr()), tcp(t, b.Addr())
	for _, r := range []*raw{again, gone, other} {
		wantCode(t, "a login", login(r, "alice", "a"), nil)
	}
	now.advance(2 * time.Minute)
	wantCode(t, "the same user", login(again, "alice", "a"), nil)
	if m := ask[*kmsg.MetadataResponse](again, 9, &kmsg.MetadataRequest{}); len(m.Brokers) != 1 {
		t.Error("no metadata after another authentication")
	}
	gone.send(&kmsg.MetadataRequest{Version: 9})
	if !gone.ends() {
		t.Error("a session goes on after its end")
	}
	wantCode(t, "another user", login(other, "bob", "b"), kerr.SaslAuthenticationFailed)
}

// Certificates that are replaced are used; a half-written one changes nothing.
func TestCertificatesReload(t *testing.T) {
	ca := newAuthority(t)
	ca.issue("broker")
	var now clock
	files := &TLS{Cert: ca.file("broker.pem"), Key: ca.file("broker.key")}
	config, err := files.config(now.now, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		c, err := config.GetConfigForClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.String()
	}
	before := serial()
	if err := os.WriteFile(files.Cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	now.advance(2 * reloadAfter)
	if serial() != before {
		t.Error("half a certificate is used")
	}
	ca.issue("broker")
	now.advance(2 * reloadAfter)
	if serial() == before {
		t.Error("a new certificate is not used")
	}
}
