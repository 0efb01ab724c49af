package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// maxInflated bounds what one batch may decompress to: 64 MiB of zeros fit in 7 KiB of zstd.
const maxInflated = 64 << 20

var errTooLarge = errors.New("decompresses to more than is allowed")

// smallInflated is what may be allocated because a frame says so.
const smallInflated = 1 << 20

// xerial starts snappy data in the frames of Java's client; other clients send one plain block.
var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeader = 16

// codecs holds what decompressing and compressing reuses. Needed for compacted topics and lookups by time only.
type codecs struct {
	max int // bytes a batch may decompress to; 0: maxInflated

	gzipReaders, gzipWriters, lz4Readers, lz4Writers sync.Pool

	zstdOnce   sync.Once
	zstdReader *zstd.Decoder
	zstdWriter *zstd.Encoder
	zstdErr    error
}

func (c *codecs) limit() int {
	if c.max > 0 {
		return c.max
	}
	return maxInflated
}

func (c *codecs) zstd() error {
	c.zstdOnce.Do(func() {
		if c.zstdReader, c.zstdErr = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(uint64(c.limit())), zstd.WithDecoderLowmem(true)); c.zstdErr != nil {
			return
		}
		c.zstdWriter, c.zstdErr = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	})
	return c.zstdErr
}

func (c *codecs) close() {
	if c.zstdReader != nil {
		c.zstdReader.Close()
	}
}

// inflate returns the records of a batch. The result is src itself where nothing is compressed.
func (c *codecs) inflate(codec int, src []byte) ([]byte, error) {
	switch codec {
	case codecNone:
		return src, nil
	case codecGzip:
		r, _ := c.gzipReaders.Get().(*gzip.Reader)
		if r == nil {
			r = new(gzip.Reader)
		}
		defer c.gzipReaders.Put(r)
		if err := r.Reset(bytes.NewReader(src)); err != nil {
			return nil, err
		}
		return c.readCapped(r, len(src))
	case codecSnappy:
		return c.inflateSnappy(src)
	case codecLZ4:
		r, _ := c.lz4Readers.Get().(*lz4.Reader)
		if r == nil {
			r = lz4.NewReader(nil)
		}
		defer c.lz4Readers.Put(r)
		r.Reset(bytes.NewReader(src))
		return c.readCapped(r, len(src))
	case codecZstd:
		if err := c.zstd(); err != nil {
			return nil, err
		}
		var head zstd.Header
		if err := head.Decode(src); err != nil {
			return nil, err
		}
		// DecodeAll believes the size a frame claims and allocates it; a stream grows with what really comes.
		if head.FrameContentSize > smallInflated && head.FrameContentSize > 256*uint64(len(src)) {
			r, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return c.readCapped(r, len(src))
		}
		dst, err := c.zstdReader.DecodeAll(src, nil)
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
			return nil, errTooLarge
		}
		return dst, err
	}
	return nil, fmt.Errorf("unknown codec %d", codec)
}

func (c *codecs) readCapped(r io.Reader, compressed int) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(min(4*compressed, c.limit()) + bytes.MinRead)
	n, err := buf.ReadFrom(io.LimitReader(r, int64(c.limit())+1))
	if err != nil {
		return nil, err
	}
	if n > int64(c.limit()) {
		return nil, errTooLarge
	}
	return buf.Bytes(), nil
}

func (c *codecs) inflateSnappy(src []byte) ([]byte, error) {
	if !bytes.HasPrefix(src, xerial) {
		return c.appendSnappy(nil, src)
	}
	if len(src) < xerialHeader {
		return nil, io.ErrUnexpectedEOF
	}
	var dst []byte
	for src = src[xerialHeader:]; len(src) > 0; {
		if len(src) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int64(binary.BigEndian.Uint32(src))
		if n > int64(len(src)-4) {
			return nil, io.ErrUnexpectedEOF
		}
		var err error
		if dst, err = c.appendSnappy(dst, src[4:4+n]); err != nil {
			return nil, err
		}
		src = src[4+n:]
	}
	return dst, nil
}

func (c *codecs) appendSnappy(dst, block []byte) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	// A copy of three bytes yields 64, so more than that is a lie that would cost memory.
	if n > c.limit()-len(dst) || n > 64*(len(block)+1) {
		return nil, errTooLarge
	}
	out, err := snappy.Decode(make([]byte, n), block)
	if err != nil {
		return nil, err
	}
	if dst == nil {
		return out, nil
	}
	return append(dst, out...), nil
}

// deflate compresses the records of a batch as its codec says.
func (c *codecs) deflate(codec int, src []byte) ([]byte, error) {
	switch codec {
	case codecNone:
		return src, nil
	case codecGzip:
		var buf bytes.Buffer
		w, _ := c.gzipWriters.Get().(*gzip.Writer)
		if w == nil {
			w = gzip.NewWriter(nil)
		}
		defer c.gzipWriters.Put(w)
		w.Reset(&buf)
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		err := w.Close()
		return buf.Bytes(), err
	case codecSnappy:
		return snappy.Encode(nil, src), nil
	case codecLZ4:
		var buf bytes.Buffer
		w, _ := c.lz4Writers.Get().(*lz4.Writer)
		if w == nil {
			w = lz4.NewWriter(nil)
			if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb)); err != nil {
				return nil, err
			}
		}
		defer c.lz4Writers.Put(w)
		w.Reset(&buf)
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		err := w.Close()
		return buf.Bytes(), err
	case codecZstd:
		if err := c.zstd(); err != nil {
			return nil, err
		}
		return c.zstdWriter.EncodeAll(src, nil), nil
	}
	return nil, fmt.Errorf("unknown codec %d", codec)
}
