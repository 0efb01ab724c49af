package main

import (
	"os"
	"strings"
	"testing"

	"github.com/moldau/moldau/streamtest"
)

func TestWordCount(t *testing.T) {
	d := streamtest.New(t, wordCount, streamtest.Partitions(3))
	in, out := streamtest.In(d, lines), streamtest.Out(d, totals)
	in.Send(nil, "to be or not to be")
	d.Restart() // a crash: what was committed stays
	in.Send(nil, "be")

	last := map[string]int64{}
	for _, r := range out.All() {
		last[r.Key] = r.Value
	}
	for word, want := range map[string]int64{"to": 2, "be": 3, "or": 1, "not": 1} {
		if last[word] != want {
			t.Errorf("%q: counted %d times, want %d", word, last[word], want)
		}
	}
}

// TestReadme keeps the program in the README the one that is compiled here.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(program)+"```\n") {
		t.Error("the program in README.md is not examples/wordcount/main.go")
	}
}
