package conformance

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// score is how a family fared.
type score struct{ vectors, explained, differing, unsupported int }

func (s *score) add(o score) {
	s.vectors, s.explained = s.vectors+o.vectors, s.explained+o.explained
	s.differing, s.unsupported = s.differing+o.differing, s.unsupported+o.unsupported
}

// TestVectors runs every vector of MOLDAU_VECTORS, or those of testdata. MOLDAU_FAMILIES limits it to some families. It fails
// if a vector differs in a way that is no deviation; what cannot be built yet is counted, and does not fail.
func TestVectors(t *testing.T) {
	dir := os.Getenv("MOLDAU_VECTORS")
	if dir == "" {
		dir = "testdata"
	}
	var families []string
	if only := os.Getenv("MOLDAU_FAMILIES"); only != "" {
		families = strings.Split(only, ",")
	}
	start := time.Now()
	vectors, err := Load(dir, families...)
	if err != nil {
		t.Fatal(err)
	}
	if len(vectors) == 0 {
		t.Fatalf("no vectors in %s", dir)
	}
	scores, reasons, shown := map[string]*score{}, map[string]int{}, map[string]int{}
	for _, v := range vectors {
		one := score{vectors: 1}
		t.Run(v.ID, func(t *testing.T) {
			one.differing = 1 // unless it gets to an end
			differences, err := v.Run(t)
			rest := v.Unexplained(differences)
			switch one.differing = 0; {
			case err != nil:
				one.unsupported = 1
				reasons[err.Error()]++
			case len(rest) > 0:
				one.differing = 1
				if shown[v.Family]++; shown[v.Family] <= 2 {
					t.Errorf("%s: %d differences\n%s", v.Scheduling, len(rest), strings.Join(rest[:min(3, len(rest))], "\n"))
				} else {
					t.Errorf("%s: %d differences", v.Scheduling, len(rest))
				}
			case len(differences) > 0:
				one.explained = 1
			}
		})
		if scores[v.Family] == nil {
			scores[v.Family] = new(score)
		}
		scores[v.Family].add(one)
	}
	var total score
	for _, name := range slices.Sorted(maps.Keys(scores)) {
		s := scores[name]
		total.add(*s)
		t.Logf("%-32s %4d vectors, %4d differ, %4d by a deviation, %4d not supported", name, s.vectors, s.differing, s.explained, s.unsupported)
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		t.Logf("%5d x %s", reasons[reason], reason)
	}
	t.Logf("of the differences, %d are not supported, %d are deviations of docs/CONFORMANCE.md", total.unsupported, total.explained)
	t.Logf("%d vectors, %d differences, %.0f seconds", total.vectors, total.differing+total.explained+total.unsupported, time.Since(start).Seconds())
}

// Every deviation has its reason in the docs, and the docs name no other.
func TestDeviationsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/CONFORMANCE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, page2, _ := strings.Cut(string(page), "\n## Deviations\n")
	page2, _, _ = strings.Cut(page2, "\n## ")
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^\d\. \*\*(.+?)\.?\*\*`).FindAllStringSubmatch(page2, -1) {
		documented = append(documented, strings.ToLower(m[1]))
	}
	have := Deviations()
	if !slices.Equal(documented, have) {
		t.Errorf("documented: %q, in the code: %q", documented, have)
	}
	if len(have) > 5 {
		t.Errorf("%d deviations; at most five are allowed", len(have))
	}
}

// What is due to ties is named so; a falsified output beside them is seen.
func TestTies(t *testing.T) {
	vectors, err := Load("testdata/ties")
	if err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors: %v", len(vectors), err)
	}
	for _, v := range vectors {
		differences, err := v.Run(t)
		if err != nil {
			t.Fatal(err)
		}
		if rest := v.Unexplained(differences); len(differences) == 0 || len(rest) > 0 {
			t.Errorf("%s: %d differences, %d of them not due to ties: %s", v.ID, len(differences), len(rest), strings.Join(rest, "\n"))
		}
		v.Outputs[0].TS++
		if differences, err = v.Run(t); err != nil || len(v.Unexplained(differences)) == 0 {
			t.Errorf("%s: a falsified output is not seen: %v", v.ID, err)
		}
	}
}

// The comparison sees a recording that was falsified in any of its parts.
func TestFalsifiedRecordingsAreSeen(t *testing.T) {
	vectors, err := Load("testdata")
	if err != nil {
		t.Fatal(err)
	}
	other := "falsified"
	lies := []struct {
		name string
		tell func(v *Vector) bool // false: the vector has no such part
	}{
		{"an output's value", func(v *Vector) bool { return len(v.Outputs) > 0 && set(&v.Outputs[0].Value, &other) }},
		{"an output's time", func(v *Vector) bool {
			if len(v.Outputs) > 0 {
				v.Outputs[0].TS++
			}
			return len(v.Outputs) > 0
		}},
		{"an output too many", func(v *Vector) bool {
			if len(v.Outputs) > 0 {
				v.Outputs = slices.Insert(slices.Clone(v.Outputs), 0, v.Outputs[0])
			}
			return len(v.Outputs) > 0
		}},
		{"a header", func(v *Vector) bool {
			if len(v.Outputs) > 0 {
				v.Outputs[0].Headers = append(slices.Clone(v.Outputs[0].Headers), [2]*string{&other, &other})
			}
			return len(v.Outputs) > 0
		}},
		{"a store", func(v *Vector) bool {
			for name, dump := range v.Stores {
				if len(dump.Entries) > 0 {
					v.Stores[name] = Dump{dump.Kind, dump.Entries[1:]}
					return true
				}
			}
			return false
		}},
		{"the dropped records", func(v *Vector) bool { v.Dropped++; return true }},
		{"a changelog", func(v *Vector) bool {
			for name, log := range v.Raw.Changelogs {
				if len(log) > 0 && !strings.Contains(name, "-STATE-STORE-") {
					v.Raw.Changelogs[name] = log[1:]
					return true
				}
			}
			return false
		}},
		{"a repartition topic", func(v *Vector) bool {
			if len(v.Raw.Internal) > 0 {
				v.Raw.Internal = v.Raw.Internal[1:]
				return true
			}
			return false
		}},
		{"the failure", func(v *Vector) bool { v.FailsAt = new(int); *v.FailsAt = 1 << 20; return true }},
	}
	for _, lie := range lies {
		told := false
		for _, v := range vectors {
			falsified := *v
			falsified.Outputs = slices.Clone(v.Outputs)
			falsified.Stores, falsified.Raw.Changelogs = maps.Clone(v.Stores), maps.Clone(v.Raw.Changelogs)
			if v.FailsAt != nil || !lie.tell(&falsified) {
				continue
			}
			differences, err := falsified.Run(t)
			if err != nil {
				continue
			}
			if told = true; len(falsified.Unexplained(differences)) == 0 {
				t.Errorf("%s: %s is not seen", v.ID, lie.name)
			}
			break
		}
		if !told {
			t.Errorf("no vector of the sample can tell the lie about %s", lie.name)
		}
	}
}

func set(at **string, to *string) bool { *at = to; return true }
