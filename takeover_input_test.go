package moldau_test

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// feed writes a third of the input: first a record for each key in the order of time, so that everybody knows what time it is however
// freshly started, then others, with late ones and with some that are too late. Where somebody is killed, at any record, none are late: what
// time it is he has not handed on. All of it is there at once, in one transaction: those that run already would else go on
// with one topic while the other is still being written, once they have waited for MaxTaskIdle.
func (h *handover) feed(late bool) {
	var records []*kgo.Record
	add := func(topic, key, value string, null bool, at time.Time) {
		r := kgo.KeyStringRecord(key, value)
		if null {
			r.Value = nil
		}
		r.Topic, r.Timestamp = topic, at
		r.Headers = []kgo.RecordHeader{{Key: "n", Value: fmt.Append(nil, len(records))}}
		records = append(records, r)
	}
	for _, topology := range h.topologies() {
		one := func(side string, key string, inTime bool) {
			at, null := h.now, false
			if !inTime {
				if late && h.random.IntN(4) == 0 {
					at = at.Add(-time.Duration(h.random.IntN(18000)) * time.Millisecond)
				}
				null = (topology == "keyvalue" || topology == "reuse") && side == "b" || topology == "versioned" && side == "b" || topology == "foreign" && side == "a"
				null = null && h.random.IntN(8) == 0
			}
			if at = at.Truncate(2 * time.Millisecond); side == "b" { // no record of either has the time of one of the other: nothing says which comes first
				at = at.Add(time.Millisecond)
			}
			value := string("abcdefx"[h.random.IntN(7)]) + fmt.Sprint(h.random.IntN(100))
			if side == "b" && (topology == "foreign" || topology == "positional") {
				key = "abcde"[int(key[1]-'0')%5:][:1]
			}
			add(topology+"-"+side, key, value, null, at)
		}
		h.now = h.now.Add(time.Second)
		for i := range 8 {
			one("a", fmt.Sprint("k", i), true)
			one("b", fmt.Sprint("k", i), true)
		}
		if topology == "foreign" { // a row that changes twice at once may stay in the result of an inner join, in Java as here
			for i := range 60 {
				one("a", fmt.Sprint("k", i+8), false)
			}
			continue
		}
		for range 120 {
			h.now = h.now.Add(time.Duration(h.random.IntN(1000)) * time.Millisecond)
			one(string("ab"[h.random.IntN(2)]), fmt.Sprint("k", h.random.IntN(8)), false)
		}
	}
	if err := h.input.BeginTransaction(); err != nil {
		h.t.Fatal(err)
	}
	if err := h.input.ProduceSync(h.context(), records...).FirstErr(); err != nil {
		h.t.Fatal(err)
	}
	// Waits until kgo (v1.22.2) has noted the partitions of topics that are new to it; a commit before that aborts and says nothing.
	if err := h.input.AbortBufferedRecords(h.context()); err != nil {
		h.t.Fatal(err)
	}
	if err := h.input.EndTransaction(h.context(), kgo.TryCommit); err != nil {
		h.t.Fatal(err)
	}
}
