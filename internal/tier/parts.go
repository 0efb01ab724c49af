package tier

import (
	"fmt"
	"slices"
)

// Part is what is known of one partition of several: the first offset still there, and the one after the last.
type Part struct{ Start, End int64 }

// parts is how far a store has come in the partitions that fill it together.
type parts struct {
	at      []int64 // -1: not begun
	advance []int64 // at after the next Apply; nil: the same
}

// Advance: see Store.
func (p *parts) Advance(partition int32, next int64) {
	p.advance = slices.Clone(p.at)
	for len(p.advance) <= int(partition) {
		p.advance = append(p.advance, -1)
	}
	p.advance[partition] = next
}

// Positions: see Store.
func (p *parts) Positions() []int64 { return slices.Clone(p.at) }

// applied: what comes from a partition is here. It says whether anything did.
func (p *parts) applied() bool {
	if p.advance == nil {
		return false
	}
	p.at, p.advance = p.advance, nil
	return true
}

// stale is why a store must not go on from there.
func (p *parts) stale(e Expect) string {
	for i, at := range p.at {
		switch {
		case at < 0:
		case i >= len(e.Parts):
			return fmt.Sprintf("the store has read partition %d, the topic has %d", i, len(e.Parts))
		case at < e.Parts[i].Start:
			return fmt.Sprintf("partition %d starts at offset %d, the store ends at %d", i, e.Parts[i].Start, at)
		case at > e.Parts[i].End:
			return fmt.Sprintf("partition %d ends at offset %d, the store is at %d: records of it were lost", i, e.Parts[i].End, at)
		}
	}
	return ""
}

// unplaced is why a store with rows cannot go on: it is not known where they are from.
func (p *parts) unplaced(e Expect) string {
	if len(e.Parts) > 0 && len(p.at) == 0 {
		return "the store does not say how far it has read each partition"
	}
	return ""
}
