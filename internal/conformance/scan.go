package conformance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// endless is later than every record, ms.
const endless = 1 << 50

// scanned is what a scan of a window or session store finds. Windows have no end.
type scanned struct {
	key, value string
	start, end int64
	at         int64 // by which it lies in a segment
}

// windowScan puts a window, and shows those of many keys.
func windowScan(p *processor, c *context, r record) {
	p.windows.Put(r.Key, r.Value, r.Time)
	scan := strings.ToLower(p.step.text("scan"))
	from, to := p.near(r)
	if scan == "all" || scan == "backwardall" {
		from, to = time.UnixMilli(0), time.UnixMilli(endless)
	}
	var found []scanned
	for k, v := range p.windows.FetchAll(from, to) {
		if !strings.HasSuffix(scan, "range") || *k.Key >= "k1" && *k.Key <= "k3" {
			found = append(found, scanned{key: *k.Key, value: str(v), start: k.Start.UnixMilli(), at: k.Start.UnixMilli()})
		}
	}
	p.showScan(c, r, found, func(one scanned) string { return fmt.Sprintf("%s@%d=%s;", one.key, one.start, one.value) })
}

// sessionScan puts a session, and shows those of a key or of many.
func sessionScan(p *processor, c *context, r record) {
	p.putSession(r)
	scan := strings.ToLower(p.step.text("scan"))
	from, to := time.UnixMilli(0), time.UnixMilli(endless)
	if strings.Contains(scan, "find") {
		from, to = p.near(r)
	}
	first, last := *r.Key, *r.Key
	if strings.HasSuffix(scan, "range") {
		first, last = "k1", "k3"
	}
	var found []scanned
	for k, v := range p.sessions.FindAll(from, time.UnixMilli(endless)) {
		if *k.Key >= first && *k.Key <= last && !k.Start.After(to) {
			found = append(found, scanned{*k.Key, str(v), k.Start.UnixMilli(), k.End.UnixMilli(), k.End.UnixMilli()})
		}
	}
	p.showScan(c, r, found, func(one scanned) string {
		return fmt.Sprintf("%s@%d/%d=%s;", one.key, one.start, one.end, one.value)
	})
}

// showScan shows what was found in the order of Java's stores: those on disk go segment by segment, and in each key by key; those in
// memory by time, then by key, then from the last start to the first.
func (p *processor) showScan(c *context, r record, found []scanned, show func(scanned) string) {
	interval := max(p.store.number("retentionMs")/2, 60_000)
	slices.SortFunc(found, func(a, b scanned) int {
		if p.store.text("storeType") == "persistent" {
			return cmp.Or(cmp.Compare(a.at/interval, b.at/interval), cmp.Compare(a.key, b.key), cmp.Compare(a.at, b.at), cmp.Compare(a.start, b.start))
		}
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key), cmp.Compare(b.start, a.start))
	})
	if strings.HasPrefix(p.step.text("scan"), "backward") {
		slices.Reverse(found)
	}
	var all strings.Builder
	for _, one := range found {
		all.WriteString(show(one))
	}
	c.Forward(r.With(limit(all.String())))
}
