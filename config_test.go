package moldau_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
)

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func TestEveryMistakeIsNamed(t *testing.T) {
	err := moldau.Config{
		Brokers: []string{"one"}, Listen: ":9092", Broker: moldau.BrokerConfig{DefaultPartitions: 2}, Guarantee: 7,
		CommitInterval: -1, TransactionTimeout: time.Microsecond, Workers: -1, Memory: 5, Reset: "middle", HTTP: "x", ReplicationFactor: -3,
		Errors: moldau.Errors{Production: moldau.ErrorPolicy{Action: 9}, Processing: moldau.ErrorPolicy{DeadLetter: "x"}},
	}.Validate()
	if err == nil {
		t.Fatal("nothing was found")
	}
	for _, want := range []string{`"one" is no host:port`, "Listen is", "Broker has settings", "unknown Guarantee 7", "CommitInterval is negative",
		"TransactionTimeout is 1µs", "Workers is negative", "Memory is 5 bytes", `unknown Reset "middle"`, `HTTP: "x"`, "ReplicationFactor is -3",
		"Errors.Production: unknown Action 9", `Errors.Processing: DeadLetter is "x", but Action is Fail`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not named: %s\nin:\n%v", want, err)
		}
	}
	err = moldau.Config{Kafka: []kgo.Opt{kgo.ClientID("x")}, ReplicationFactor: 3, Listen: "nowhere", CommitInterval: time.Minute}.Validate()
	for _, want := range []string{"Kafka has options", "ReplicationFactor is 3", `"nowhere" is no host:port`, "more than half of TransactionTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("not named: %s\nin:\n%v", want, err)
		}
	}
	err = moldau.Config{Listen: "127.0.0.1:0", Broker: moldau.BrokerConfig{Advertise: "nowhere"}}.Validate()
	if want := `Broker.Advertise: "nowhere" is no host:port`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("not named: %s\nin:\n%v", want, err)
	}
	err = moldau.Config{Listen: "0.0.0.0:0"}.Validate()
	for _, want := range []string{`Listen: "0.0.0.0:0" accepts`, "set Broker.Advertise", "or set Broker.OpenToNetwork if"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("not named: %s\nin:\n%v", want, err)
		}
	}
	if err := (moldau.Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	if _, err := moldau.New("a b", nil, moldau.Config{Workers: -1}); !errors.Is(err, moldau.ErrConfig) ||
		!strings.Contains(err.Error(), `' '`) || !strings.Contains(err.Error(), "no topology") || !strings.Contains(err.Error(), "Workers") {
		t.Errorf("New: %v", err)
	}
}

func TestWhatNewRefuses(t *testing.T) {
	topo := build(t, WordCount)
	dir := t.TempDir()
	fresh := func(cfg moldau.Config) error {
		cfg.Logger = quiet(t)
		a, err := moldau.New("wordcount", topo, cfg)
		if err == nil {
			a.Close()
		}
		return err
	}
	a, err := moldau.New("wordcount", topo, moldau.Config{StateDir: dir, Logger: quiet(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh(moldau.Config{StateDir: dir}); !errors.Is(err, moldau.ErrStateInUse) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("a directory in use: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, moldau.ErrClosed) {
		t.Errorf("running what was closed: %v", err)
	}
	if err := fresh(moldau.Config{StateDir: dir}); err != nil {
		t.Errorf("a directory that was let go: %v", err)
	}
	if _, err := moldau.New("other", topo, moldau.Config{StateDir: dir, Logger: quiet(t)}); !errors.Is(err, moldau.ErrOtherApp) || !strings.Contains(err.Error(), `"wordcount"`) {
		t.Errorf("another application's directory: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fresh(moldau.Config{StateDir: dir}); !errors.Is(err, moldau.ErrStateFormat) || !strings.Contains(err.Error(), `"99"`) {
		t.Errorf("a directory of the future: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, cfg := range map[string]moldau.Config{"Listen": {Listen: l.Addr().String()}, "HTTP": {HTTP: l.Addr().String()}} {
		cfg.StateDir = t.TempDir()
		if err := fresh(cfg); err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s at a busy port: %v", name, err)
		}
	}
}
