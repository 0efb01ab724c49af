package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The command serves where it says, and stops when told to.
func TestBrokerServes(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	r, w := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"broker", "-data", t.TempDir(), "-listen", "127.0.0.1:0"}, w, &stderr)
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
		if code := run(t.Context(), c.args, io.Discard, &stderr); code != c.code {
			t.Errorf("%s: exit code %d, want %d", c.name, code, c.code)
		}
		for _, s := range c.says {
			if !strings.Contains(stderr.String(), s) {
				t.Errorf("%s: %q is not in %q", c.name, s, &stderr)
			}
		}
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan int, 1)
	go func() { done <- run(ctx, []string{"broker", "-data", dir, "-listen", "127.0.0.1:0"}, w, io.Discard) }()
	bufio.NewReader(r).ReadString('\n')
	var stderr bytes.Buffer
	if code := run(ctx, []string{"broker", "-data", dir, "-listen", "127.0.0.1:0"}, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), "-data") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	stop()
	<-done
}
