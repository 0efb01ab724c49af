package group

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Topics is what there is to subscribe to. Version changes whenever anything in it does.
type Topics interface {
	Version() int64
	Lookup(name string) (id [16]byte, partitions int32, ok bool)
	Name(id [16]byte) (name string, ok bool)
	Names() []string // in order
}

// maxRegex bounds the regular expression of a subscription.
const maxRegex = 1024

// compile makes a subscription's expression match whole names.
func compile(expr string) (*regexp.Regexp, error) {
	if len(expr) > maxRegex {
		return nil, kerr.InvalidRegularExpression
	}
	return regexp.Compile("^(?:" + expr + ")$")
}

// topics returns the topics a member subscribes to that exist, with their partitions.
func (m *consumer) topics(topics Topics) map[[16]byte]int32 {
	out := map[[16]byte]int32{}
	add := func(name string) {
		if id, n, ok := topics.Lookup(name); ok {
			out[id] = n
		}
	}
	for _, name := range m.names {
		add(name)
	}
	if m.pattern != nil {
		for _, name := range topics.Names() {
			if m.pattern.MatchString(name) {
				add(name)
			}
		}
	}
	return out
}

// changed reports whether the topics subscribed to have changed: made, deleted or grown.
func (g *Consumer) changed(topics Topics) bool {
	if g.version == topics.Version() {
		return false
	}
	g.version = topics.Version()
	before := g.subscribed
	g.subscribed = g.fingerprint(topics)
	return g.subscribed != before
}

// fingerprint differs where the topics subscribed to do.
func (g *Consumer) fingerprint(topics Topics) string {
	all := map[[16]byte]int32{}
	for _, m := range g.members { //lint:ordered a union
		maps.Copy(all, m.topics(topics))
	}
	var b strings.Builder
	for _, t := range slices.SortedFunc(maps.Keys(all), func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) }) {
		b.Write(t[:])
		b.WriteString(strconv.Itoa(int(all[t])))
	}
	return b.String()
}

// retarget decides who is to get what.
func (g *Consumer) retarget(topics Topics) {
	subs := make([]subscription, 0, len(g.members))
	for _, id := range g.memberIDs() {
		subs = append(subs, subscription{id, g.members[id].topics(topics), sortedParts(g.target[id])})
	}
	assign, _ := assignorByName(g.assignor())
	target := assign(subs)
	g.target = map[string]map[Part]struct{}{}
	for id := range g.members { //lint:ordered each on its own
		g.target[id] = map[Part]struct{}{}
		for _, p := range target[id] {
			g.target[id][p] = struct{}{}
		}
	}
	g.targetEpoch = g.epoch
	g.version, g.subscribed = topics.Version(), g.fingerprint(topics)
	g.unsaved = true
}

// assignor returns the assignor most members ask for, the default if none does.
func (g *Consumer) assignor() string {
	votes := map[string]int{}
	for _, m := range g.members { //lint:ordered it only counts
		votes[m.assignor]++
	}
	name := assignors[0].name
	for _, a := range assignors {
		if votes[a.name] > votes[name] {
			name = a.name
		}
	}
	return name
}
