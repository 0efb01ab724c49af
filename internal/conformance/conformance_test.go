package conformance

import (
	"os"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
)

// TestVectors runs every vector of MOLDAU_VECTORS, or those of testdata. MOLDAU_FAMILIES limits it to some families.
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
	type score struct{ vectors, differing, unsupported int }
	scores := map[string]*score{}
	reasons := map[string]int{}
	shown := map[string]int{}
	for _, v := range vectors {
		sc := scores[v.Family]
		if sc == nil {
			sc = &score{}
			scores[v.Family] = sc
		}
		sc.vectors++
		differences, err := v.Run(t)
		if err != nil {
			sc.unsupported++
			reasons[err.Error()]++
			continue
		}
		if len(differences) > 0 {
			sc.differing++
			if shown[v.Family]++; shown[v.Family] <= 2 {
				t.Errorf("%s (%s): %d differences\n%s", v.ID, v.Scheduling, len(differences), strings.Join(differences[:min(3, len(differences))], "\n"))
			}
		}
	}
	var names []string
	for name := range scores {
		names = append(names, name)
	}
	sort.Strings(names)
	var total score
	for _, name := range names {
		sc := scores[name]
		total.vectors += sc.vectors
		total.differing += sc.differing
		total.unsupported += sc.unsupported
		t.Logf("%-32s %4d vectors, %4d differ, %4d not supported", name, sc.vectors, sc.differing, sc.unsupported)
	}
	var list []string
	for reason := range reasons {
		list = append(list, reason)
	}
	slices.Sort(list)
	for _, reason := range list {
		t.Logf("%5d x %s", reasons[reason], reason)
	}
	t.Logf("%d vectors, %d differ, %d not supported, %.1f seconds", total.vectors, total.differing, total.unsupported, time.Since(start).Seconds())
}
