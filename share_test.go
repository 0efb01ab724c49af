package moldau_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
)

// TestProcessesShare lets two processes share the tasks, lets one go cleanly and kills one.
func TestProcessesShare(t *testing.T) {
	long(t)
	dir := t.TempDir()
	addr := address(t, filepath.Join(dir, "broker"))
	cl := reader(t, kgo.SeedBrokers(addr))
	topicsFor(t, cl)
	r := rand.New(rand.NewPCG(3, 3))
	text, want := workload(r, 8000)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fed := make(chan error, 1)
	go func() { fed <- feed(ctx, cl, text, 50*time.Millisecond) }()

	config := func(name string) moldau.Config {
		return moldau.Config{Brokers: []string{addr}, StateDir: filepath.Join(dir, name), CommitInterval: 20 * time.Millisecond, SessionTimeout: 6 * time.Second}
	}
	tasks := func(a *runs) int { return len(a.Tasks()) }
	one := start(t, "words", build(t, WordCount), config("one"))
	eventually(t, "the first process has all tasks", func() bool { return tasks(one) == 4 })
	two := start(t, "words", build(t, WordCount), config("two"))
	eventually(t, "both have some", func() bool { return tasks(one) == 2 && tasks(two) == 2 })

	// A process that leaves cleanly is not waited for.
	began := time.Now()
	if err := one.end(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second has all", func() bool { return tasks(two) == 4 })
	t.Logf("taken over %v after the stop began", time.Since(began))

	// A process that is killed gets its tasks back at once when it is started again.
	log := filepath.Join(dir, "log")
	defer dump(t, log)
	env := []string{"MOLDAU_TEST_STATE=" + filepath.Join(dir, "three"), "MOLDAU_TEST_BROKERS=" + addr}
	three := spawn(t, log, env...)
	eventually(t, "the third has some", func() bool { return tasks(two) == 2 })
	three.Process.Kill()
	three.Wait()
	began = time.Now()
	three = spawn(t, log, env...)
	defer func() { three.Process.Kill(); three.Wait() }()
	eventually(t, "it runs again", func() bool { return bytes.Count(logged(t, log), []byte("state=running")) == 2 })
	t.Logf("running %v after the kill", time.Since(began))
	if n := tasks(two); n != 2 {
		t.Errorf("meanwhile the second has %d tasks", n)
	}

	// And one that is killed for good is replaced when its session ends.
	three.Process.Kill()
	three.Wait()
	began = time.Now()
	eventually(t, "the second has all again", func() bool { return tasks(two) == 4 })
	t.Logf("taken over %v after the kill", time.Since(began))
	exact(t, cl, want)
	if err := <-fed; err != nil {
		t.Error(err)
	}
	if err := two.end(); err != nil {
		t.Error(err)
	}
}

// logged is what a child has logged so far.
func logged(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eventually polls for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
