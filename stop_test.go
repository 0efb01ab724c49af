package moldau_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/stream"
)

// TestAFunctionThatHangs: Run returns soon after StopTimeout and names the function; the state directory is free again once
// it comes back, and the record is counted by the next run.
func TestAFunctionThatHangs(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	var once sync.Once
	hang := func(line string) []string {
		once.Do(func() { entered <- true; <-leave })
		return strings.Fields(line)
	}
	words := func(b *stream.Builder) {
		b.Stream(Lines).FlatMapValues(hang).GroupBy(ByWord, func(_ []byte, word string) string { return word }).Count(Counts).ToStream().To(Totals)
	}
	cfg := moldau.Config{StateDir: t.TempDir(), StopTimeout: 100 * time.Millisecond}
	app := start(t, "words", build(t, words), cfg)
	write(t, app.App, "lines", "one two")
	<-entered
	began := time.Now()
	err := app.end()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if !errors.Is(err, moldau.ErrStopTimeout) || !strings.Contains(err.Error(), "TestAFunctionThatHangs") || !strings.Contains(err.Error(), "stop_test.go") {
		t.Errorf("got %v", err)
	}
	if _, err := moldau.New("words", build(t, words), cfg); !errors.Is(err, moldau.ErrStateInUse) {
		t.Errorf("the state directory is used by two: %v", err)
	}
	close(leave)
	eventually(t, "the directory is free", func() bool {
		next, err := moldau.New("words", build(t, words), cfg)
		if err == nil {
			next.Close()
		}
		return err == nil
	})
	app = start(t, "words", build(t, words), cfg)
	want := map[string]int64{"one": 1, "two": 1}
	if got, _ := follow(t, app.App, "totals", isExactly(want)); len(got) != 2 {
		t.Errorf("counted %v", got)
	}
	if err := app.end(); err != nil {
		t.Error(err)
	}
}
