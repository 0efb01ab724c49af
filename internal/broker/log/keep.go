package log

import (
	"encoding/binary"
	"slices"
)

// keep returns what compaction leaves of a batch: all, part or nothing of it. Offsets never change.
func (c *compaction) keep(h *header, b []byte) ([]byte, error) {
	kept, err := c.retained(h, b)
	if kept == nil && err == nil && h.next() == c.end {
		// The last batch stays, empty if need be: else who reads from before it would never get to the end.
		return rebuild(h, b, nil, h.maxTS, h.maxTS, 0, 0), nil
	}
	return kept, err
}

func (c *compaction) retained(h *header, b []byte) ([]byte, error) {
	if h.control() {
		return c.retainedMarker(h, b), nil
	}
	if h.txn() {
		c.inTxn[h.pid] = true
		if h.base < c.upTo && c.isAborted(h) {
			return nil, nil
		}
	}
	if h.base >= c.upTo {
		return b, nil
	}
	body, err := c.l.codecs.inflate(h.codec(), b[batchHeader:])
	if err != nil {
		return b, nil // was accepted while the topic was not compacted; only its reader can judge
	}
	due := h.attrs&attrDeleteHorizon != 0 && h.baseTS <= c.now
	var records []record
	deletes := false
	err = eachRecord(body, h.count, func(r *record) bool {
		if r.key == nil || r.value == nil && due {
			return true
		}
		if last, ok := c.keys[c.hash(r.key)]; ok && last > h.base+r.offsetDelta {
			return true
		}
		deletes = deletes || r.value == nil
		records = append(records, *r)
		return true
	})
	switch {
	case err != nil:
		return b, nil // as above
	case len(records) == 0:
		return nil, nil
	}
	baseTS, attrs := h.baseTS, h.attrs
	switch {
	case !deletes:
		attrs &^= attrDeleteHorizon // or the partition would be due for ever
	case h.attrs&attrDeleteHorizon == 0:
		baseTS, attrs = c.now+c.cfg.DeleteRetentionMS, h.attrs|attrDeleteHorizon
	}
	if len(records) == int(h.count) && attrs == h.attrs {
		return b, nil
	}
	var out []byte
	maxTS := int64(-1)
	for i := range records {
		r := &records[i]
		out = r.append(out, h.baseTS, baseTS)
		maxTS = max(maxTS, h.baseTS+r.tsDelta)
	}
	if h.attrs&attrLogAppendTime != 0 {
		maxTS = h.maxTS
	}
	if out, err = c.l.codecs.deflate(h.codec(), out); err != nil {
		return nil, err
	}
	return rebuild(h, b, out, baseTS, maxTS, int32(len(records)), attrs), nil
}

// retainedMarker drops a marker once none of its transaction's batches is left and delete.retention.ms have passed
// since that was noticed: readers must learn of the end as long as they may have seen the begin.
func (c *compaction) retainedMarker(h *header, b []byte) []byte {
	if c.inTxn[h.pid] {
		delete(c.inTxn, h.pid)
		return b
	}
	if h.base >= c.upTo {
		return b
	}
	if h.attrs&attrDeleteHorizon != 0 {
		if h.baseTS > c.now {
			return b
		}
		if commit, _, ok := parseMarker(b); ok && !commit {
			c.markers = append(c.markers, h.base)
		}
		return nil
	}
	var out []byte
	horizon := c.now + c.cfg.DeleteRetentionMS
	if err := eachRecord(b[batchHeader:], h.count, func(r *record) bool {
		out = r.append(out, h.baseTS, horizon)
		return true
	}); err != nil {
		return b
	}
	return rebuild(h, b, out, horizon, h.maxTS, h.count, h.attrs|attrDeleteHorizon)
}

// append writes the record for a batch with another base timestamp.
func (r *record) append(dst []byte, baseTS, newBaseTS int64) []byte {
	if baseTS == newBaseTS {
		return append(dst, r.raw...)
	}
	_, n := binary.Varint(r.raw)
	_, m := binary.Varint(r.raw[n+1:])
	rest := r.raw[n+1+m:]
	ts := binary.AppendVarint(nil, baseTS+r.tsDelta-newBaseTS)
	dst = binary.AppendVarint(dst, int64(1+len(ts)+len(rest)))
	dst = append(dst, r.raw[n]) // attributes
	dst = append(dst, ts...)
	return append(dst, rest...)
}

// rebuild makes a batch that keeps the offsets, the producer and the epoch of another.
func rebuild(h *header, b, body []byte, baseTS, maxTS int64, count int32, attrs int16) []byte {
	if count == 0 {
		attrs = h.attrs &^ (attrCodec | attrDeleteHorizon)
	}
	out := slices.Concat(b[:batchHeader], body)
	binary.BigEndian.PutUint32(out[posLength:], uint32(len(out)-lengthSize))
	binary.BigEndian.PutUint16(out[posAttrs:], uint16(attrs))
	binary.BigEndian.PutUint64(out[posBaseTS:], uint64(baseTS))
	binary.BigEndian.PutUint64(out[posMaxTS:], uint64(maxTS))
	binary.BigEndian.PutUint32(out[posCount:], uint32(count))
	sealBatch(out)
	return out
}
