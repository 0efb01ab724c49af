package log

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// eachBatch calls f for the batches of a segment that no longer grows, each of them verified. f must not keep them.
func (l *Log) eachBatch(ctx context.Context, s *segment, f func(h *header, b []byte) error) error {
	s.p.mu.Lock()
	size := s.size
	s.p.mu.Unlock()
	o, err := l.files.get(s, size, false)
	if err != nil {
		return err
	}
	defer l.files.put(o)
	o.mu.RLock()
	n := o.index.count()
	o.mu.RUnlock()
	for i := 0; i < n; {
		if err := ctx.Err(); err != nil {
			return err
		}
		o.mu.RLock()
		blocks := []block{o.index.at(i)}
		bytes := blocks[0].len
		for i++; i < n && bytes < flushChunk; i++ {
			b := o.index.at(i)
			blocks = append(blocks, b)
			bytes += b.len
		}
		o.mu.RUnlock()
		buf := l.readBuf(int(bytes))
		err := s.eachIn(o.f, *buf, blocks, f)
		l.readBufs.Put(buf)
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *segment) eachIn(r io.ReaderAt, buf []byte, blocks []block, f func(h *header, b []byte) error) error {
	pos := blocks[0].pos
	if n, err := r.ReadAt(buf, pos); n < len(buf) {
		return s.corrupt(pos+int64(n), fmt.Errorf("the file ends here: %w", err))
	}
	for i := range blocks {
		data := buf[:blocks[i].len]
		buf = buf[blocks[i].len:]
		if err := blocks[i].check(data); err != nil {
			return s.corrupt(blocks[i].pos, err)
		}
		for len(data) > 0 {
			h, _ := parseHeader(data)
			b := data[:h.size:h.size]
			data = data[h.size:]
			if !crcMatches(b) {
				return s.corrupt(blocks[i].pos, fmt.Errorf("the batch at offset %d does not match its checksum", h.base))
			}
			if err := f(&h, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// segmentWriter writes a new segment in one go.
type segmentWriter struct {
	fs    vfs.FS
	s     *segment
	f     vfs.File
	buf   []byte
	index index
}

func newSegmentWriter(fs vfs.FS, s *segment) (*segmentWriter, error) {
	if err := removeIfThere(fs, s.indexPath()); err != nil {
		return nil, err
	}
	f, err := fs.Create(s.path(), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &segmentWriter{fs: fs, s: s, f: f}, nil
}

func (w *segmentWriter) add(b []byte) error {
	h, _ := parseHeader(b)
	w.index.add(&h, b)
	w.s.size += int64(len(b))
	w.s.maxTS = max(w.s.maxTS, h.recordTS())
	if h.attrs&attrDeleteHorizon != 0 && (w.s.horizon == 0 || h.baseTS < w.s.horizon) {
		w.s.horizon = h.baseTS
	}
	w.buf = append(w.buf, b...)
	if len(w.buf) < flushChunk {
		return nil
	}
	return w.write()
}

func (w *segmentWriter) write() error {
	_, err := w.f.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

// finish makes the segment durable, its directory's entry excepted, or removes what there is of it.
func (w *segmentWriter) finish(good bool) error {
	if !good {
		return errors.Join(w.f.Close(), removeIfThere(w.fs, w.s.path()))
	}
	err := w.write()
	if err == nil {
		err = w.f.Sync()
	}
	if err = errors.Join(err, w.f.Close()); err != nil {
		return errors.Join(err, removeIfThere(w.fs, w.s.path()))
	}
	if err := w.index.finish(w.fs, w.s.indexPath()); err != nil {
		return errors.Join(err, removeIfThere(w.fs, w.s.path()))
	}
	w.s.sum = w.index.outsideSum()
	return nil
}
