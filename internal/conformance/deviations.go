package conformance

import "strings"

// Deviation is a place where we mean to differ from Kafka Streams; docs/CONFORMANCE.md says why. At most five are allowed.
type Deviation struct {
	Name string // as docs/CONFORMANCE.md calls it
	// covers says whether a difference of a vector is of this kind.
	covers func(v *Vector, difference string) bool
}

// Deviations are all that there are.
func Deviations() []Deviation {
	return []Deviation{
		{"expired puts", func(v *Vector, difference string) bool {
			return strings.HasPrefix(difference, "changelog ") && v.putsExpired(changelogStore(difference)) ||
				strings.HasPrefix(difference, "dropped ") && v.putsExpired("")
		}},
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

// putsExpired says whether somebody may put into that window store what has expired: a processor, or co-grouped streams, of which each
// has its own time. "": into any.
func (v *Vector) putsExpired(store string) bool {
	windowed := map[string]bool{} // co-groupings
	for _, step := range v.Spec.Steps {
		switch op := step.text("op"); {
		case op == "windowedBy":
			windowed[step.text("id")] = v.step(step.in(0)).text("op") == "cogroup"
		case store != "" && step.text("store") != store:
		case step.text("storeKind") == "window" && step.text("storeType") == "persistent",
			op == "aggregate" && windowed[step.in(0)]:
			return true
		}
	}
	return false
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
