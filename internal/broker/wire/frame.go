package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Sizes of frames, in bytes of what follows the length.
const (
	// MaxProduceFrame is the largest produce request, Kafka's socket.request.max.bytes.
	MaxProduceFrame = 100 << 20
	// MaxUnknownFrame is the largest request of a client that has not said who it is (sasl.server.max.receive.size).
	MaxUnknownFrame = 512 << 10
	// MaxGroupFrame is the largest JoinGroup and SyncGroup request: they carry members' own data.
	MaxGroupFrame = 16 << 20
	// MaxFrame is the largest other request.
	MaxFrame = 2 << 20
	// growStep bounds what is allocated ahead of bytes that have arrived, so that a length alone pins no memory.
	growStep = 1 << 20
	growBy   = 8
)

const produceKey = 0

// KeySize is what of a frame has been read when memory is first reserved for it.
const KeySize = 2

// maxFrame returns the largest frame of a request.
func maxFrame(key int16) int {
	switch key {
	case produceKey:
		return MaxProduceFrame
	case 11, 14:
		return MaxGroupFrame
	default:
		return MaxFrame
	}
}

// ReadFrame reads one frame without its length into a buffer of its own; a large produce request's comes from buffers. io.EOF
// means that the peer closed between two frames.
// The limit of a frame depends on its request key, and is most at any rate; it is checked before the frame is allocated.
// reserve is asked before memory for so many more bytes of the frame is taken; an error of its is returned.
func ReadFrame(r io.Reader, most int, buffers *Buffers, reserve func(n int) error) (*Buffer, error) {
	var head [6]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, err
	}
	size := int(int32(binary.BigEndian.Uint32(head[:4])))
	if size < 8 || size > most {
		return nil, fmt.Errorf("%w: a frame of %d bytes", ErrMalformed, size)
	}
	if _, err := io.ReadFull(r, head[4:6]); err != nil {
		return nil, noEOF(err)
	}
	key := int16(binary.BigEndian.Uint16(head[4:6]))
	if !KnownKey(key) {
		return nil, fmt.Errorf("%w: unknown request key %d", ErrMalformed, key)
	}
	if limit := maxFrame(key); size > limit {
		return nil, fmt.Errorf("%w: a %s request of %d bytes, the limit is %d", ErrMalformed, Name(key), size, limit)
	}
	if err := reserve(min(size, growStep)); err != nil {
		return nil, err
	}
	take := buffers.get
	if key != produceKey {
		// Only of a produce request it is known when its bytes are not used any more.
		take = func(n int) *Buffer { return &Buffer{B: make([]byte, n)} }
	}
	buf := take(min(size, growStep))
	copy(buf.B, head[4:6])
	if _, err := io.ReadFull(r, buf.B[2:]); err != nil {
		return nil, noEOF(err)
	}
	for len(buf.B) < size {
		// What is allocated never exceeds a few times what has arrived.
		more := min(size, growBy*len(buf.B))
		if err := reserve(more - len(buf.B)); err != nil {
			return nil, err
		}
		grown := take(more)
		n := copy(grown.B, buf.B)
		if _, err := io.ReadFull(r, grown.B[n:]); err != nil {
			return nil, noEOF(err)
		}
		if key == produceKey {
			buf.Release()
		}
		buf = grown
	}
	return buf, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Header is the header of a request.
type Header struct {
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      string
}

// apiVersionsKey is the one request whose version may be beyond what is known, and whose response header never has tags.
const apiVersionsKey = 18

// ParseHeader splits a frame into header and body. For a version that is not known it returns the header as far as
// it goes and no body, and no error: what to answer depends on the key.
func ParseHeader(frame []byte) (Header, []byte, error) {
	if len(frame) < 8 {
		return Header{}, nil, fmt.Errorf("%w: a header of %d bytes", ErrMalformed, len(frame))
	}
	h := Header{
		Key:           int16(binary.BigEndian.Uint16(frame)),
		Version:       int16(binary.BigEndian.Uint16(frame[2:])),
		CorrelationID: int32(binary.BigEndian.Uint32(frame[4:])),
	}
	known, flexible := Known(h.Key, h.Version)
	if !known {
		return h, nil, nil
	}
	w := walker{rest: frame[8:]}
	if n := w.int16(); n > 0 {
		if n > len(w.rest) {
			return h, nil, fmt.Errorf("%w: the client id ends after the frame", ErrMalformed)
		}
		h.ClientID = string(w.rest[:n])
		w.rest = w.rest[n:]
	}
	if flexible && w.err == "" {
		w.tagSection(nil)
	}
	if w.err != "" {
		return h, nil, fmt.Errorf("%w: header of %s version %d: %s", ErrMalformed, Name(h.Key), h.Version, w.err)
	}
	return h, w.rest, nil
}

// AppendResponseHeader appends the length, to be filled in by FinishResponse, and the header of a response.
func AppendResponseHeader(dst []byte, h Header) []byte {
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.CorrelationID))
	if _, flexible := Known(h.Key, h.Version); flexible && h.Key != apiVersionsKey {
		dst = append(dst, 0)
	}
	return dst
}

// FinishResponse fills in the length of the response that starts at dst[0].
func FinishResponse(dst []byte) {
	binary.BigEndian.PutUint32(dst, uint32(len(dst)-4))
}
