package commit

import "github.com/moldau/moldau/internal/task"

// Names of our entries in offset metadata. No store can have a name with an '@'.
const (
	sequenceName = "@sequence"
	writerName   = "@writer"
)

// Sequence is what the committed metadata say about a task's last commit: its number, and the process that made it.
type Sequence struct{ Number, Writer int64 }

// stamp puts a commit's sequence into the metadata that a task wants committed.
func stamp(metadata string, s Sequence) string {
	m, err := task.ReadMetadata(metadata)
	if err != nil {
		panic("commit: a task's own metadata: " + err.Error())
	}
	if m.Numbers == nil {
		m.Numbers = map[string]int64{}
	}
	m.Numbers[sequenceName], m.Numbers[writerName] = s.Number, s.Writer
	return m.String()
}

// ReadSequence reads the sequence from committed metadata; zero if there is none.
func ReadSequence(metadata string) (Sequence, error) {
	m, err := task.ReadMetadata(metadata)
	return Sequence{m.Numbers[sequenceName], m.Numbers[writerName]}, err
}
