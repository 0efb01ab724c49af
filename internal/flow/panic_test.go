package flow

import "testing"

// A panic in a function of package main, or of a module without a dot in its path, is its author's as any other.
func TestStandard(t *testing.T) {
	for function, want := range map[string]bool{
		"runtime.panicIndex": true, "encoding/json.Marshal": true, "strings.Repeat": true,
		"main.lookup": false, "main.(*App).lookup.func1": false,
		"wordcount.Split": false, "wordcount_test.TestSplit": false, "wordcount/internal/words.Split": false, "wordcounter.Split": true,
		"example.com/app.Split": false, "github.com/moldau/moldau/stream.mapValues[...].func1": false,
	} {
		if got := standard(function, "wordcount"); got != want {
			t.Errorf("%s: %v", function, got)
		}
	}
}
