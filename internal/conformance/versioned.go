package conformance

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
)

// versioned is the versioned store of a step.
func versioned[V any](step Step, v serde.Serde[V]) state.Versioned[text, V] {
	return state.NewVersioned(storeName(step), nullable, v, step.duration("historyMs"))
}

// version is one as processors show it.
func version(v text, from time.Time, ok bool) string {
	if !ok {
		return "null"
	}
	return fmt.Sprintf("%s@%d", str(v), from.UnixMilli())
}

// putVersion gives what Kafka Streams' put returns: when the version ends, -1 for the latest, the least number for one that has
// expired.
func (p *processor) putVersion(r record) int64 {
	switch to, kept := p.past.Put(r.Key, r.Value, r.Time); {
	case !kept:
		return math.MinInt64
	case to.IsZero():
		return -1
	default:
		return to.UnixMilli()
	}
}

func asOf(p *processor, c *context, r record) {
	code := p.putVersion(r)
	latest := version(p.past.Get(r.Key))
	then := version(p.past.GetAsOf(r.Key, time.UnixMilli(max(0, r.Time.UnixMilli()-p.step.number("lookBackMs")))))
	c.Forward(r.With(limitless(fmt.Sprintf("%d %s %s", code, latest, then))))
}

func versionedOps(p *processor, c *context, r record) {
	if odd(r.Value) {
		c.Forward(r.With(limitless("delete " + version(p.past.Delete(r.Key, r.Time)))))
		return
	}
	c.Forward(r.With(limitless(fmt.Sprintf("put %d", p.putVersion(r)))))
}

// versionLines are the versions of the keys k0 to k5, each from the latest back to a deletion or to the end of history.
func versionLines[V any](lines []string, st *table.Versions[text, V], show func(V) string) ([]string, error) {
	for i := range 6 {
		k := s(fmt.Sprint("k", i))
		for at := int64(table.Latest); ; {
			v, from, ok, err := st.AsOf(k, at)
			if err != nil {
				return lines, err
			}
			if !ok {
				break
			}
			lines, at = append(lines, fmt.Sprintf("%s=%s@%d", str(k), show(v), from)), from-1
		}
	}
	return lines, nil
}

// endsWithLatest compares the changelog of a versioned store, of which the last record of each key is given, with the latest
// versions in Kafka Streams' store. Its own changelog may end with another one; see docs/CONFORMANCE.md.
func (r *run) endsWithLatest(store string, last map[string]string) {
	latest := map[string]Entry{}
	for _, e := range r.Stores[store].Entries {
		if _, ok := latest[str(e.Key)]; !ok {
			latest[str(e.Key)] = e
		}
	}
	for i := range 6 {
		k := fmt.Sprint("k", i)
		key := hex.EncodeToString([]byte(k))
		want, number := "", ""
		if e, ok := latest[k]; ok {
			var n [8]byte
			binary.BigEndian.PutUint64(n[:], uint64(num(e.Value)))
			want = fmt.Sprintf("%s=%s@%d", key, hex.EncodeToString([]byte(str(e.Value))), *e.TS)
			number = fmt.Sprintf("%s=%s@%d", key, hex.EncodeToString(n[:]), *e.TS)
		}
		if got := last[key]; got != want && got != number {
			r.differ("latest version of store %s:\n  logged %s\n  want   %s", store, got, want)
		}
	}
}

// endsWithPuts says whether a changelog of Kafka Streams, compacted, ends for each key with what was put last: where we log the latest
// version once more, with what came out of order before it; or with a version, or a deletion, that was too old for the store, which we do
// not log.
func (r *run) endsWithPuts(changelog string, compacted []string) bool {
	s, _ := r.topology.Store(strings.TrimSuffix(strings.TrimPrefix(changelog, "oracle-"), "-changelog"))
	puts, last := map[string][]string{}, map[string]string{}
	var seen int64
	for _, one := range r.topics.Raw(changelog) {
		key := hex.EncodeToString(one.Key)
		puts[key] = append(puts[key], fmt.Sprintf("%s=%s@%d", key, hexed(one.Value), one.Time.UnixMilli()))
		seen = max(seen, one.Time.UnixMilli())
	}
	for key, all := range puts {
		n := len(all) - 1
		if n > 1 && slices.Contains(all[:n-1], all[n]) && at(all[n-1]) < at(all[n]) {
			n-- // what follows is the latest once more
		}
		last[key] = all[n]
	}
	wanted := map[string]string{}
	for _, line := range compacted {
		key, _, _ := strings.Cut(line, "=")
		wanted[key] = line
	}
	for key := range both(last, wanted) {
		got, want := last[key], wanted[key]
		if got == want || want == "" && strings.Contains(got, "=null@") {
			continue
		}
		if want == "" && !r.late(s.Spec.Retention) || want != "" && at(want) >= seen-s.Spec.Retention {
			return false
		}
	}
	return true
}

// late says whether an event came too late for a history of so many ms. Time is that of events, and of what came of them: it may have gone through a
// topic that is read back.
func (r *run) late(history int64) bool {
	seen, outputs := int64(0), r.Outputs
	for i, e := range r.Events {
		if seen = max(seen, e.TS); e.Topic != "" && e.TS < seen-history {
			return true
		}
		for ; len(outputs) > 0 && outputs[0].At <= i; outputs = outputs[1:] {
			seen = max(seen, outputs[0].TS)
		}
	}
	return false
}

// at is the time in a line.
func at(line string) int64 {
	_, ms, _ := strings.Cut(line, "@")
	return num(&ms)
}
