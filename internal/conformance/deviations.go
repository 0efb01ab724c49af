package conformance

import (
	"slices"
	"strings"
)

// Deviation is a place where we mean to differ from Kafka Streams; docs/CONFORMANCE.md says why. At most five are allowed.
type Deviation struct {
	Name string // as docs/CONFORMANCE.md calls it
	// covers says whether a difference of a vector is of this kind.
	covers func(v *Vector, difference string) bool
}

// expiredPuts begins a difference that is due to them alone.
const expiredPuts = "expired puts"

// Deviations are all that there are.
func Deviations() []Deviation {
	return []Deviation{
		{expiredPuts, func(_ *Vector, difference string) bool { return strings.HasPrefix(difference, expiredPuts+": ") }},
		{"versioned changelogs", func(v *Vector, difference string) bool {
			return strings.HasPrefix(difference, "changelog ") && v.Stores[changelogStore(difference)].Kind == "VERSIONED"
		}},
		{"filters of tables kept later", func(v *Vector, difference string) bool {
			return v.filtersEarly() && lacksOnly(difference)
		}},
		{"optimization", func(v *Vector, difference string) bool {
			return v.Spec.Config.Optimization == "all" &&
				(strings.HasPrefix(difference, "internal topic ") && strings.Contains(difference, "-repartition:") || v.movesMerged())
		}},
		{"record caches", func(v *Vector, _ string) bool {
			return v.Spec.Config.CacheBytes > 0 && v.hasSessions()
		}},
	}
}

// Unexplained is the part of a vector's differences that deviations do not cover.
func (v *Vector) Unexplained(differences []string) (rest []string) {
next:
	for _, difference := range differences {
		for _, d := range Deviations() {
			if d.covers(v, difference) {
				continue next
			}
		}
		rest = append(rest, difference)
	}
	return rest
}

// changelogStore is the store whose changelog a difference is about.
func changelogStore(difference string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(difference, "changelog oracle-"), "-changelog:")
	return name
}

// filtersEarly says whether a table that has no store of its own is filtered, by itself or by rows computed from it, before a later
// step makes Java keep it.
func (v *Vector) filtersEarly() bool {
	for i, step := range v.Spec.Steps {
		if op := step.text("op"); op != "tableFilter" && op != "tableFilterNot" {
			continue
		}
		root := v.step(step.in(0))
		for root.has("in") && !root.has("store") && rowwise(root.text("op")) {
			root = v.step(root.in(0))
		}
		before := *v
		before.Spec.Steps = v.Spec.Steps[:i]
		if id := root.text("id"); !root.has("store") && (&interpreter{vector: v}).keeps(id) && !(&interpreter{vector: &before}).keeps(id) {
			return true
		}
	}
	return false
}

// movesMerged says whether a stream with a new key is grouped as it is more than once, so that Java's optimizer moves it behind a topic,
// and merged with another: the merged stream then has its records in another order.
func (v *Vector) movesMerged() bool {
	grouped, merged := map[string]int{}, map[string]bool{}
	for _, step := range v.Spec.Steps {
		switch step.text("op") {
		case "groupByKey":
			grouped[step.in(0)]++
		case "merge":
			merged[step.in(0)], merged[step.in(1)] = true, true
		}
	}
	for _, step := range v.Spec.Steps {
		if id := step.text("id"); step.has("key") && grouped[id] > 1 && merged[id] {
			return true
		}
	}
	return false
}

func (v *Vector) hasSessions() bool {
	return slices.ContainsFunc(v.Spec.Steps, func(s Step) bool { return s.sub("window").text("type") == "session" })
}

// rowwise says whether a step computes a table row by row.
func rowwise(op string) bool {
	return slices.Contains([]string{"tableFilter", "tableFilterNot", "tableMapValues", "tableTransformValues"}, op)
}

// lacksOnly says whether a difference is that we say less: what we say is part of what Java says, in its order.
func lacksOnly(difference string) bool {
	_, lists, ok := strings.Cut(difference, ":\n  got  ")
	got, want, ok2 := strings.Cut(lists, "\n  want ")
	if !ok || !ok2 || !strings.HasPrefix(difference, "event ") && !strings.HasPrefix(difference, "internal topic ") {
		return false
	}
	rest := strings.Fields(want)
	for _, one := range strings.Fields(got) {
		i := slices.Index(rest, one)
		if i < 0 || !gone(rest[:i]) {
			return false
		}
		rest = rest[i+1:]
	}
	return gone(rest)
}

// gone says whether all records are deletions.
func gone(records []string) bool {
	return !slices.ContainsFunc(records, func(r string) bool { return !strings.Contains(r, "=null@") })
}

// step is the step that made an object.
func (v *Vector) step(id string) Step {
	for _, step := range v.Spec.Steps {
		if step.text("id") == id {
			return step
		}
	}
	return nil
}
