package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau"
)

func TestPlaces(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]moldau.ResetTo{
		"earliest": moldau.ResetToEarliest(), "latest": moldau.ResetToLatest(), "offset:7": moldau.ResetToOffset(7),
		"time:2026-01-02T03:04:05Z": moldau.ResetToTime(at),
	} {
		if got, err := place(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "yesterday", "offset:-1", "offset:x", "time:now"} {
		if _, err := place(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestAppMistakes(t *testing.T) {
	for args, says := range map[string]string{
		"":                               "say reset",
		"reset":                          "-app is missing",
		"reset -app x -to never":         `-to "never"`,
		"reset -app x -state none/there": "no state directory",
		"reset -app a/b -state none":     "'/'",
	} {
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"app"}, strings.Fields(args)...), nil, &out, &out); code == 0 || !bytes.Contains(out.Bytes(), []byte(says)) {
			t.Errorf("%s: exit code %d, %s", args, code, &out)
		}
	}
}
