package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/moldau/moldau"

	"github.com/moldau/moldau/examples/flights/input"
	"github.com/moldau/moldau/examples/flights/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// month writes a CSV of n flights, one a minute from midnight on, alternately from ORD and LAX.
func month(t *testing.T, n int) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("scheduled,delay_min,distance_mi,origin,destination\n")
	for i := range n {
		at := time.Date(2001, 1, 1, 0, i, 0, 0, time.UTC).Format(input.TimeLayout)
		codes := []string{"ORD,LAX", "LAX,ORD"}
		fmt.Fprintf(&b, "%s,%d,1745,%s\n", at, i%4*10, codes[i%2])
	}
	return write(t, b.String())
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "month.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// program is play in the background.
type program struct {
	page, kafka string
	stop        context.CancelFunc
	ended       chan error
}

// begin starts it and waits until it has said where it listens.
func begin(t *testing.T, o options) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	p := &program{stop: cancel, ended: make(chan error, 1)}
	go func() {
		err := play(ctx, o, console{out: in, log: slog.New(slog.DiscardHandler)})
		in.Close()
		p.ended <- err
	}()
	lines := bufio.NewScanner(out)
	for (p.page == "" || p.kafka == "") && lines.Scan() {
		name, at, _ := strings.Cut(lines.Text(), " ")
		switch at = strings.TrimSpace(at); name {
		case "http":
			p.page = at
		case "kafka":
			p.kafka = at
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the program
	t.Cleanup(func() { p.stop(); <-p.ended })
	return p
}

// end waits for the program's end.
func (p *program) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the program does not end")
		return nil
	}
}

func at(t *testing.T, data, csv string) options {
	t.Helper()
	return options{input: csv, data: data, http: "127.0.0.1:0", listen: "127.0.0.1:0", guarantee: exactlyOnce}
}

// eventually asks until the answer is the wanted one.
func eventually(t *testing.T, url, want string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, body := get(t, url)
		if strings.Contains(body, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s\n says %s\nwant %s", url, body, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// count is how many committed records a topic has.
func countRecords(t *testing.T, kafka, topic string) (n int) {
	t.Helper()
	if err := topics.Read(t.Context(), []kgo.Opt{kgo.SeedBrokers(kafka)}, topic, func(*kgo.Record) { n++ }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFromTheCSVToTheAnswers(t *testing.T) {
	data, csv := t.TempDir(), month(t, 600)
	o := at(t, data, csv)
	o.exit = true
	if err := begin(t, o).end(t); err != nil {
		t.Fatal(err)
	}
	// A second run goes on from there, and has nothing to do but to answer.
	p := begin(t, at(t, data, csv))
	eventually(t, p.page+"/api/flight?origin=ORD&destination=LAX&scheduled=2001-01-01T00:02Z",
		`"flights":[{"scheduled":"2001-01-01T00:02Z","delay_min":20,"distance_mi":1745,"origin":"ORD","destination":"LAX"}],"route":{"flights":300,"delayed":150,"delay_min":3000}}`)
	// 09:58 is the last departure from ORD: an hour is closed if it ends by 03:58.
	eventually(t, p.page+"/api/airports/ORD?from=2001-01-01T02:00Z&to=2001-01-01T04:00Z",
		`"city":"Chicago","hours":[{"start":"2001-01-01T02:00Z","flights":30,"delayed":15,"delay_min":300,"final":true},{"start":"2001-01-01T03:00Z","flights":30,"delayed":15,"delay_min":300,"final":false}]}`)
	eventually(t, p.page+"/api/leaderboard", `"flights":300,"delayed":150,"delay_min":3000,"share":0.5`)
	eventually(t, p.page+"/readyz", "running")
	eventually(t, p.page+"/metrics", "moldau_")
	for topic, want := range map[string]int{topics.Flights: 600, topics.AirportHours: 6, topics.FlightsLate: 0, topics.Airports: 229} {
		if n := countRecords(t, p.kafka, topic); n != want {
			t.Errorf("topic %s has %d records, want %d", topic, n, want)
		}
	}
	began := time.Now()
	p.stop()
	if err := p.end(t); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("stopping took %v", took)
	}
}

func TestAtLeastOnceRunsToo(t *testing.T) {
	o := at(t, t.TempDir(), month(t, 100))
	o.exit, o.guarantee, o.rate = true, atLeastOnce, 1000
	if err := begin(t, o).end(t); err != nil {
		t.Fatal(err)
	}
}

func TestStoppedInTheMiddle(t *testing.T) {
	data, csv := t.TempDir(), month(t, 2000)
	for range 3 {
		o := at(t, data, csv)
		o.rate = 1000
		p := begin(t, o)
		eventually(t, p.page+"/api/leaderboard", `"iata":"ORD"`)
		p.stop()
		if err := p.end(t); err != nil {
			t.Fatal(err)
		}
	}
	p := begin(t, at(t, data, csv))
	eventually(t, p.page+"/api/flight?origin=LAX&destination=ORD&scheduled=2001-01-02T09:19Z", `"route":{"flights":1000,"delayed":500,`)
	if n := countRecords(t, p.kafka, topics.Flights); n != 2000 {
		t.Errorf("%d flights, want 2000", n)
	}
}

func TestWhatCannotBe(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	used := t.TempDir()
	begin(t, at(t, used, month(t, 1)))
	csv := month(t, 1)
	for _, c := range []struct {
		name  string
		o     options
		is    error
		words []string
	}{
		{"a malformed line", at(t, t.TempDir(), write(t, "scheduled,delay_min,distance_mi,origin,destination\n2001-01-01T00:10Z,x,1,A,B\n")), input.ErrMalformed,
			[]string{`month.csv:2:19: delay_min "x" is not a whole number`, "nothing of this file has been published"}},
		{"no input", at(t, t.TempDir(), "/none.csv"), os.ErrNotExist, []string{"/none.csv", "-input wants"}},
		{"a busy port for HTTP", func() options { o := at(t, t.TempDir(), csv); o.http = busy.Addr().String(); return o }(), nil,
			[]string{busy.Addr().String(), "address already in use", "choose another address with -http"}},
		{"a busy port for Kafka", func() options { o := at(t, t.TempDir(), csv); o.listen = busy.Addr().String(); return o }(), nil,
			[]string{busy.Addr().String(), "address already in use", "choose another"}},
		{"a data directory in use", at(t, used, csv), moldau.ErrStateInUse, []string{used, "another process"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := begin(t, c.o).end(t)
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("error %v, want %v", err, c.is)
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q, want %q in it", err, w)
				}
			}
		})
	}
}

// TestAnUndecodableRecord stops the application where it stands; what came before is committed.
func TestAnUndecodableRecord(t *testing.T) {
	data, csv := t.TempDir(), month(t, 200)
	o := at(t, data, csv)
	o.exit = true
	if err := begin(t, o).end(t); err != nil {
		t.Fatal(err)
	}
	p := begin(t, at(t, data, csv))
	eventually(t, p.page+"/readyz", "running")
	eventually(t, p.page+"/api/leaderboard", `"complete":true`)
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.kafka))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	bad := &kgo.Record{Topic: topics.Flights, Key: []byte("ORD"), Value: []byte("not JSON")}
	if err := cl.ProduceSync(t.Context(), bad).FirstErr(); err != nil {
		t.Fatal(err)
	}
	err = p.end(t)
	where := fmt.Sprintf("%s[%d]@%d", topics.Flights, bad.Partition, bad.Offset)
	if _, ok := errors.AsType[*moldau.RecordError](err); !ok || !strings.Contains(err.Error(), where) {
		t.Fatalf("error %v, want a RecordError at %s", err, where)
	}
}
