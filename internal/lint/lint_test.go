package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/moldau/moldau"

func TestHouse(t *testing.T) {
	findings, err := Code("../..", module, "./...")
	if err != nil {
		t.Fatal(err)
	}
	text, err := Text("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(findings, text...) {
		t.Error(f)
	}
}

// TestPlanted wants every violation planted below testdata found, on its line, and nothing else. A line that breaks a
// rule says so in a comment: want "text".
func TestPlanted(t *testing.T) {
	got, err := Code("testdata/planted", module+"/internal/lint/testdata/planted", "./...")
	if err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile(`want "([^"]*)"`)
	want := map[string]string{} // file:line
	err = filepath.WalkDir("testdata/planted", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel("testdata/planted", path)
		if err != nil {
			return err
		}
		for i, text := range strings.Split(string(b), "\n") {
			if m := wanted.FindStringSubmatch(text); m != nil {
				want[fmt.Sprintf("%s:%d", name, i+1)] = m[1]
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) == 0 {
		t.Fatal("nothing is planted")
	}
	for _, f := range got {
		at := fmt.Sprintf("%s:%d", f.Pos.Filename, f.Pos.Line)
		if text, ok := want[at]; !ok {
			t.Errorf("nothing was planted there: %s", f)
		} else if !strings.Contains(f.String(), text) {
			t.Errorf("%s was planted as %q", f, text)
		}
		delete(want, at)
	}
	for at, text := range want {
		t.Errorf("%s: not found: %s", at, text)
	}
}

func TestText(t *testing.T) {
	dir := t.TempDir()
	// Parted, or this file would be a finding itself.
	home, up := "/"+"home/ada/moldau", ".."+"/"
	for name, text := range map[string]string{
		"docs/here.md":  "see [the readme](" + up + "README.md) and /dev/null",
		"README.md":     "see docs/here.md",
		"docs/there.md": "one\nsee " + home + "\nand " + up + up + "elsewhere/x.csv",
		".ci/run":       "cat " + up + "elsewhere/x.csv",
		"binary":        "\x00 " + home,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Text(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s:%d", f.Pos.Filename, f.Pos.Line))
	}
	if want := []string{"docs/there.md:2", "docs/there.md:3"}; !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", found, want)
	}
}

// TestTables wants the tables themselves to be in order: nothing twice, nothing unknown, no way round between rooms.
func TestTables(t *testing.T) {
	ways := map[string][]string{}
	for _, l := range layers {
		if _, twice := ways[l.room]; twice || l.why == "" {
			t.Errorf("%s: listed twice or without a reason", l.room)
		}
		ways[l.room] = l.may
	}
	var walk func(room string, path []string)
	walk = func(room string, path []string) {
		if slices.Contains(path, room) {
			t.Fatalf("the ways lead round: %v", append(path, room))
		}
		for _, to := range ways[room] {
			if _, known := ways[to]; !known {
				t.Errorf("%s may import %s, which is no room", room, to)
			}
			walk(to, append(path, room))
		}
	}
	for _, l := range layers {
		walk(l.room, nil)
	}
}
