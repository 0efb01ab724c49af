package conformance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// windowScan puts a window, and shows those of many keys, in the order in which Java's store of the type gives them.
func windowScan(p *processor, c *context, r record) {
	p.windows.Put(r.Key, r.Value, r.Time)
	scan := p.step.text("scan")
	from, to := p.near(r)
	if strings.HasSuffix(strings.ToLower(scan), "all") && !strings.HasSuffix(scan, "etchAll") {
		from, to = time.UnixMilli(0), time.UnixMilli(1<<50)
	}
	type row struct {
		segment, start int64
		key, line      string
	}
	var rows []row
	for k, v := range p.windows.FetchAll(from, to) {
		at := row{start: k.Start.UnixMilli(), key: *k.Key}
		if strings.HasSuffix(scan, "etchRange") && (at.key < "k1" || at.key > "k3") {
			continue
		}
		at.line = fmt.Sprintf("%s@%d=%s;", at.key, at.start, str(v))
		rows = append(rows, at)
	}
	if p.step.text("storeType") == "persistent" { // segment by segment, and in each key by key
		interval := max(p.step.number("retentionMs")/2, 60_000)
		for i := range rows {
			rows[i].segment = rows[i].start / interval
		}
		slices.SortFunc(rows, func(a, b row) int {
			return cmp.Or(cmp.Compare(a.segment, b.segment), cmp.Compare(a.key, b.key), cmp.Compare(a.start, b.start))
		})
	}
	if strings.HasPrefix(scan, "backward") {
		slices.Reverse(rows)
	}
	var all strings.Builder
	for _, one := range rows {
		all.WriteString(one.line)
	}
	c.Forward(r.With(limit(all.String())))
}
