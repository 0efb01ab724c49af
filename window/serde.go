package window

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/moldau/moldau/serde"
)

// TimeKey writes the keys of time and sliding windows as they stand in a topic: the key, then the start as 8 bytes, big
// endian (Kafka Streams' TimeWindowedSerializer). The end is not written; Decode adds size to the start. Forever gives
// unlimited windows.
func TimeKey[K any](inner serde.Serde[K], size time.Duration) serde.Serde[Key[K]] {
	return timeKey[K]{inner, size}
}

type timeKey[K any] struct {
	inner serde.Serde[K]
	size  time.Duration
}

func (s timeKey[K]) Validate() error {
	var p problems
	if s.size <= 0 {
		p.say("the windows of a windowed key have size %v; it must be positive", s.size)
	}
	if s.size != Forever {
		p.whole("the size", s.size)
	}
	return errors.Join(append(p, validate(s.inner))...)
}

// Format says that it is a windowed key, and of what.
func (s timeKey[K]) Format() string { return "windowed " + serde.Format(s.inner) }

func (s timeKey[K]) Encode(dst []byte, k Key[K]) ([]byte, error) {
	dst, err := s.inner.Encode(dst, k.Key)
	if err != nil {
		return dst, err
	}
	return appendMillis(dst, k.Start), nil
}

func (s timeKey[K]) Decode(b []byte) (Key[K], error) {
	key, tail, err := split(b, 8, "a start of 8 bytes")
	if err != nil {
		return Key[K]{}, err
	}
	k, err := s.inner.Decode(key)
	if err != nil {
		return Key[K]{}, err
	}
	start := int64(binary.BigEndian.Uint64(tail))
	if start < 0 {
		return Key[K]{}, fmt.Errorf("window: a windowed key starts at %d ms; no window starts before the epoch", start)
	}
	return Key[K]{k, Millis(start, add(start, sizeMS(s.size)))}, nil
}

// SessionKey writes the keys of session windows as they stand in a topic and in a changelog: the key, then end and
// start, in this order, as 8 bytes each, big endian (Kafka Streams' SessionWindowedSerializer).
func SessionKey[K any](inner serde.Serde[K]) serde.Serde[Key[K]] { return sessionKey[K]{inner} }

type sessionKey[K any] struct{ inner serde.Serde[K] }

func (s sessionKey[K]) Validate() error { return validate(s.inner) }

// Format says that it is the key of a session, and of what.
func (s sessionKey[K]) Format() string { return "session " + serde.Format(s.inner) }

func (s sessionKey[K]) Encode(dst []byte, k Key[K]) ([]byte, error) {
	dst, err := s.inner.Encode(dst, k.Key)
	if err != nil {
		return dst, err
	}
	return appendMillis(appendMillis(dst, k.End), k.Start), nil
}

func (s sessionKey[K]) Decode(b []byte) (Key[K], error) {
	key, tail, err := split(b, 16, "an end and a start of 8 bytes each")
	if err != nil {
		return Key[K]{}, err
	}
	k, err := s.inner.Decode(key)
	if err != nil {
		return Key[K]{}, err
	}
	end, start := int64(binary.BigEndian.Uint64(tail)), int64(binary.BigEndian.Uint64(tail[8:]))
	if start < 0 || end < start {
		return Key[K]{}, fmt.Errorf("window: a session key runs from %d to %d ms; it must start at or after the epoch and end at or after its start", start, end)
	}
	return Key[K]{k, Millis(start, end)}, nil
}

func appendMillis(dst []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(t.UnixMilli()))
}

// split parts a windowed key from its times.
func split(b []byte, tail int, what string) (key, times []byte, err error) {
	if len(b) < tail {
		return nil, nil, fmt.Errorf("window: a windowed key ends in %s, got %d bytes: %q", what, len(b), b)
	}
	at := len(b) - tail
	return b[:at:at], b[at:], nil
}

func validate(s any) error {
	if v, ok := s.(serde.Validator); ok {
		return v.Validate()
	}
	return nil
}
