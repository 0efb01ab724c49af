package conformance

import (
	"slices"
	"strings"
)

// Deviations are the places where we mean to differ from Kafka Streams; docs/CONFORMANCE.md says why. At most five are allowed. Each is
// found where it may occur, by what would be the same without it, and a difference that is due to it alone begins with its name.
func Deviations() []string { return []string{expiredPuts, versionedLogs, recordCaches, ties} }

const (
	expiredPuts   = "expired puts"
	versionedLogs = "versioned changelogs"
	recordCaches  = "record caches"
	ties          = "ties"
)

// Unexplained is the part of a vector's differences that is not due to deviations.
func (v *Vector) Unexplained(differences []string) []string {
	return slices.DeleteFunc(slices.Clone(differences), func(difference string) bool {
		kind, _, _ := strings.Cut(difference, ": ")
		return slices.Contains(Deviations(), kind)
	})
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
