package conformance

import "strings"

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

// step is the step that made an object.
func (v *Vector) step(id string) Step {
	for _, step := range v.Spec.Steps {
		if step.text("id") == id {
			return step
		}
	}
	return nil
}
