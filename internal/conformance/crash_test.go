package conformance

import (
	"bufio"
	"cmp"
	stdcontext "context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/internal/broker/log"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

// childEnv makes the test's binary a process of applications, which runs until it is killed or its input ends.
const childEnv = "MOLDAU_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// life is what one process is told to do: an application for each vector.
type life struct {
	Apps      []application
	Guarantee moldau.Guarantee
	Commit    time.Duration // the time between commits; 0: commitEvery
	Drop      bool          // a planted bug: the first record that it reads is forgotten
}

type application struct {
	Vector  *Vector
	Broker  string
	Dir     string
	Workers int
}

func child(in io.Reader, out io.Writer) error {
	var todo life
	stdin := json.NewDecoder(in)
	if err := stdin.Decode(&todo); err != nil {
		return err
	}
	ctx, cancel := stdcontext.WithCancel(stdcontext.Background())
	defer cancel()
	ended := make(chan error, len(todo.Apps))
	var apps []*moldau.App
	for _, one := range todo.Apps {
		one.Vector.perCommit, one.Vector.spare = true, true
		top, err := topologyOf(one.Vector)
		if err != nil {
			return err
		}
		cfg := config(one.Dir, one.Workers)
		cfg.Brokers, cfg.Guarantee, cfg.CommitInterval, cfg.SessionTimeout = []string{one.Broker}, todo.Guarantee, cmp.Or(todo.Commit, commitEvery), session
		cfg.TransactionTimeout = session
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		if todo.Drop {
			cfg.Kafka = []kgo.Opt{kgo.WithHooks(new(forgetful))}
		}
		app, err := moldau.New("oracle", top, cfg)
		if err != nil {
			return fmt.Errorf("%s: %w", one.Vector.ID, err)
		}
		apps = append(apps, app)
		go func() {
			err := app.Run(ctx)
			if err != nil {
				err = fmt.Errorf("%s: %w", one.Vector.ID, err)
			}
			ended <- err
		}()
	}
	for _, app := range apps {
		select {
		case <-app.Ready():
		case err := <-ended:
			return err
		}
	}
	fmt.Fprintln(out, "ready")
	stopped := make(chan struct{})
	go func() {
		io.Copy(io.Discard, in)
		close(stopped)
	}()
	left := len(apps)
	select {
	case err := <-ended:
		return fmt.Errorf("an application has ended: %w", err)
	case <-stopped:
	}
	cancel()
	for ; left > 0; left-- {
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

const (
	commitEvery = 20 * time.Millisecond
	session     = 3 * time.Second
	together    = 8 // vectors in one process
)

// forgetful takes the key and the value from the first record that a process reads of the input.
type forgetful struct{ n atomic.Int64 }

func (f *forgetful) OnFetchRecordBuffered(r *kgo.Record) {
	if !strings.HasPrefix(r.Topic, "oracle-") && !r.Attrs.IsControl() && f.n.Add(1) == 1 {
		r.Key, r.Value = nil, nil
	}
}

// TestCrashes feeds recordings many events at once to applications that give on results once per key and commit, as is the
// default, and kills their process (SIGKILL) twice on the way: once it finds its state directory again, once only what is in
// the cluster. What does not depend on when records come must be in the end as streamtest has it with one event at a time and
// every update: the last row of each key of tables, their changelogs, and all records where no table lies before them.
// MOLDAU_LIVE says how many recordings, 0: all.
func TestCrashes(t *testing.T) {
	start, ran, differing, compared := time.Now(), 0, 0, 0
	vectors := liveVectors(t, together, 50, (*Vector).crashes)
	for from := 0; from < len(vectors); from += together {
		some := vectors[from:min(from+together, len(vectors))]
		t.Run(some[0].ID, func(t *testing.T) {
			for id, differences := range crash(t, some, from, life{}, &compared) {
				ran++
				if len(differences) > 0 {
					differing++
					t.Errorf("%s: %d differences\n%s", id, len(differences), strings.Join(differences[:min(3, len(differences))], "\n"))
				}
			}
		})
	}
	t.Logf("crashes: %d vectors, %d topics and stores, %d differences, %.0f seconds", ran, compared, differing, time.Since(start).Seconds())
}

// What crashes do to an application that counts at least once, or forgets a record when it starts, is noticed.
func TestCrashesShowBugs(t *testing.T) {
	vectors := liveVectors(t, 0, 0, (*Vector).crashes)
	for _, bug := range []struct {
		name string
		life
	}{{"at least once", life{Guarantee: moldau.AtLeastOnce, Commit: 300 * time.Millisecond}}, {"a record is forgotten", life{Drop: true}}} {
		seen := false
		for from := 0; from < len(vectors) && !seen; from += together {
			for _, differences := range crash(t, vectors[from:min(from+together, len(vectors))], from, bug.life, new(int)) {
				seen = seen || len(differences) > 0
			}
		}
		if !seen {
			t.Errorf("%s: not noticed", bug.name)
		}
	}
}

// crashes is whether a vector can be run there and something of it is compared.
func (v *Vector) crashes() bool {
	if !v.live() || len(v.Events) < 6 {
		return false
	}
	s := settledOf(v, arrival{})
	for _, f := range s.sinks {
		if f > open {
			return true
		}
	}
	for _, f := range s.kept {
		if f > open {
			return true
		}
	}
	return false
}

// crash runs some vectors in one process, kills it twice, and returns how each differs.
func crash(t *testing.T, vectors []*Vector, seed int, todo life, compared *int) map[string][]string {
	var all []*live
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	for i, v := range vectors {
		l := newLive(t, v, 1)
		b, err := broker.Start(t.Context(), broker.Config{Dir: filepath.Join(l.dir, "broker"), Durability: log.OS, MinSessionTimeout: time.Second,
			Listeners: []broker.Listener{{Address: "127.0.0.1:0"}}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		l.connect(kgo.SeedBrokers(b.Addr()))
		defer l.cl.Close()
		kept := *v
		kept.spare = true
		if l.top, err = topologyOf(&kept); err != nil {
			t.Fatal(err)
		}
		l.run.topology = l.top
		todo.Apps = append(todo.Apps, application{Vector: &Vector{ID: v.ID, Family: v.Family, Spec: v.Spec, Events: v.Events}, Broker: b.Addr(), Dir: filepath.Join(l.dir, "state"), Workers: 1 + 2*(i%2)})
		all = append(all, l)
	}
	for part := range 3 {
		for i := range todo.Apps {
			todo.Apps[i].Workers = 4 - todo.Apps[i].Workers
		}
		cmd, stdin := spawn(t, todo)
		for _, l := range all {
			n := len(l.Events)
			l.send(l.Events[n*part/3 : n*(part+1)/3]...)
		}
		if part == 2 {
			for _, l := range all {
				l.fetch(l.settle())
			}
			stdin.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("the last process: %v\n%s", err, cmd.Stderr)
			}
			break
		}
		time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond) // some of it is done, some is not
		cmd.Process.Kill()
		cmd.Wait()
		stdin.Close()
		for i, l := range all {
			if part == i%2 {
				if err := os.RemoveAll(filepath.Join(l.dir, "state")); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	differences := map[string][]string{}
	for i, l := range all {
		calm := streamtest.Run(t, l.top, streamtest.App("oracle"), streamtest.Start(time.UnixMilli(1e12)))
		for _, e := range l.Events {
			streamtest.In(calm, stream.NewTopic[text, text](e.Topic, nullable, nullable)).SendRecord(eventRecord(e))
		}
		*compared += settledOf(vectors[i], arrival{}).compare(&l.run, l, calm)
		differences[l.ID] = l.differences
	}
	return differences
}

// spawn starts a process and waits until its applications are at work.
func spawn(t *testing.T, todo life) (*exec.Cmd, io.Closer) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = new(strings.Builder)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(stdin).Encode(todo); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("the process does not start: %v\n%s", err, cmd.Stderr)
	}
	return cmd, stdin
}
