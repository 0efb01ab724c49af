package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/moldau/moldau/internal/broker/auth"
	"github.com/moldau/moldau/internal/broker/log"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The command serves where it says, and stops when told to.
func TestBrokerServes(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	r, w := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"broker", "-data", t.TempDir(), "-listen", "127.0.0.1:0", "-metrics", "127.0.0.1:0"}, nil, w, &stderr)
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(line, "listens on ")
	addr, _, _ := strings.Cut(rest, ",")
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	produce, cancel := context.WithTimeout(ctx, 20*time.Second)
	if err := cl.ProduceSync(produce, &kgo.Record{Topic: "t", Value: []byte("v")}).FirstErr(); err != nil {
		t.Error(err)
	}
	cancel()
	cl.Close()
	_, metrics, _ := strings.Cut(stderr.String(), "metrics on ")
	if resp, err := http.Get(strings.TrimSpace(strings.SplitN(metrics, "\n", 2)[0])); err != nil {
		t.Error(err)
	} else {
		if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), "moldau_broker_topics 1") {
			t.Errorf("metrics: %v %s", err, body)
		}
		resp.Body.Close()
		http.DefaultClient.CloseIdleConnections()
	}
	stop()
	select {
	case code := <-done:
		if code != 0 {
			t.Errorf("exit code %d: %s", code, &stderr)
		}
	case <-time.After(2 * stopWithin):
		t.Error("the broker does not stop")
	}
}

func TestMistakes(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"no command", nil, 2, []string{"usage", "broker"}},
		{"help", []string{"help"}, 0, []string{"usage"}},
		{"unknown command", []string{"brokr"}, 2, []string{"brokr", "usage"}},
		{"unknown flag", []string{"broker", "-prot", "1"}, 2, []string{"-prot"}},
		{"argument", []string{"broker", "9092"}, 2, []string{`"9092"`}},
		{"all at once", []string{"broker", "-data", "", "-durability", "maybe", "-partitions", "0", "-listen", "9092"}, 2,
			[]string{"-data", "maybe", "-partitions", "9092"}},
		{"everybody's address", []string{"broker", "-data", t.TempDir(), "-listen", ":0"}, 2, []string{"Advertise"}},
		{"busy port", []string{"broker", "-data", t.TempDir(), "-listen", busy.Addr().String()}, 1, []string{busy.Addr().String(), "choose another address"}},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), c.args, nil, io.Discard, &stderr); code != c.code {
			t.Errorf("%s: exit code %d, want %d", c.name, code, c.code)
		}
		for _, s := range c.says {
			if !strings.Contains(stderr.String(), s) {
				t.Errorf("%s: %q is not in %q", c.name, s, &stderr)
			}
		}
	}
}

func TestBrokerFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	users := file("users", "# of the team\nalice:a:b\nbob:c\n")
	o, err := brokerFlags([]string{"-partitions", "3", "-config", file("config", `
# what everybody gets
partitions = 5
durability = os
listen = 127.0.0.1:1
listen = 0.0.0.0:2,advertise=kafka.example:9093,mtls,sasl=plain+SCRAM-SHA-512,max-connections=7,max-connection-creation-rate=8
tls-cert = c.pem
tls-key = k.pem
tls-client-ca = a.pem
users = `+users+`
acls = true
super-user = User:alice
max-connections-per-ip = -1
max-connections-per-ip-overrides = build.example:100, ::1:5
`)}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	c := o.broker
	if c.DefaultPartitions != 3 || c.Durability != log.OS || len(c.Listeners) != 2 || !c.ACLs || c.Users["alice"] != "a:b" || len(c.SuperUsers) != 1 ||
		c.MaxConnectionsPerIP != -1 || c.MaxConnectionsPerIPOverrides != "build.example:100, ::1:5" {
		t.Errorf("%+v", c)
	}
	if l := c.Listeners[1]; l.Advertise != "kafka.example:9093" || l.TLS == nil || l.TLS.ClientCA != "a.pem" || len(l.SASL) != 2 || l.SASL[0] != auth.Plain || l.MaxConnections != 7 || l.MaxConnectionCreationRate != 8 || l.String() != "SASL_SSL" {
		t.Errorf("%+v", l)
	}
	_, err = brokerFlags([]string{"-config", file("bad", "prot = 1\npartitions\ndurability = maybe\nmax-reauth = soon\n"), "-listen", "10.0.0.1:1,tsl", "-users", file("nobody", "alice"),
		"-max-connections-per-ip-overrides", "here"}, io.Discard)
	for _, want := range []string{`"here" is not HOST:COUNT`, `bad:1: there is no flag "prot"`, "bad:2", "maybe", "bad:4: max-reauth", `"tsl"`, "nobody:1", "OpenToNetwork"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"broker", "-data", dir, "-listen", "127.0.0.1:0"}, nil, w, io.Discard)
	}()
	bufio.NewReader(r).ReadString('\n')
	var stderr bytes.Buffer
	if code := run(ctx, []string{"broker", "-data", dir, "-listen", "127.0.0.1:0"}, nil, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), "-data") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	stop()
	<-done
}
