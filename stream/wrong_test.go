package stream_test

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What does not fit does not build, and the compiler's answer names the author's line.
func TestWrongTypesDoNotBuild(t *testing.T) {
	const file = "testdata/wrong/wrong.go"
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := exec.Command("go", "build", "-gcflags=-e", "-o", os.DevNull, "./testdata/wrong").CombinedOutput()
	if err == nil {
		t.Fatal("all of it builds")
	}
	answers := map[int]string{}
	for _, m := range regexp.MustCompile(`(?m)wrong\.go:(\d+):\d+: (.*)$`).FindAllStringSubmatch(string(answer), -1) {
		line, _ := strconv.Atoi(m[1])
		answers[line] += m[2] + "\n"
	}
	want := regexp.MustCompile(`// want "(.*)"`)
	for i, text := range strings.Split(string(source), "\n") {
		got := answers[i+1]
		delete(answers, i+1)
		m := want.FindStringSubmatch(text)
		switch {
		case m == nil && got != "":
			t.Errorf("line %d should build, but: %s", i+1, got)
		case m != nil && !regexp.MustCompile(m[1]).MatchString(got):
			t.Errorf("line %d: got %q, want %q", i+1, got, m[1])
		}
	}
	if len(answers) > 0 {
		t.Errorf("%s", answer)
	}
}
