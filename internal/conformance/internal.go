package conformance

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// internal compares the bytes of repartition and foreign-key topics, record by record in the order of production. A topic
// that only one side has is a difference as well: it would be a topic on the cluster.
func (r *run) internal() {
	want := map[string][]string{}
	for _, one := range r.Raw.Internal {
		line := fmt.Sprintf("%s=%s@%d", str(one.Key), str(one.Value), *one.TS)
		for _, h := range one.Headers {
			line += fmt.Sprintf(",%s:%s", str(h[0]), str(h[1]))
		}
		want[one.Topic] = append(want[one.Topic], line)
	}
	got := map[string][]string{}
	for _, name := range r.d.Topics() {
		if !strings.HasPrefix(name, "oracle-") || strings.HasSuffix(name, "-changelog") {
			continue
		}
		for _, one := range r.d.Raw(name) {
			line := fmt.Sprintf("%s=%s@%d", hexed(one.Key), hexed(one.Value), one.Time.UnixMilli())
			for _, h := range one.Headers {
				line += fmt.Sprintf(",%s:%s", h.Key, str(nullableText(h.Value)))
			}
			got[name] = append(got[name], line)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(both(got, want))) {
		if !slices.Equal(got[name], want[name]) {
			r.differ("internal topic %s:\n  got  %s\n  want %s", name, strings.Join(got[name], " "), strings.Join(want[name], " "))
		}
	}
}

func hexed(b []byte) string {
	if b == nil {
		return "null"
	}
	return hex.EncodeToString(b)
}
