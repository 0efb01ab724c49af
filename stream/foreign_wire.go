package stream

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/moldau/moldau/serde"
)

// What a subscription asks for. The numbers are Kafka Streams'.
type instruction byte

const (
	unsubscribe         instruction = iota // take it away, silently: another subscription brings the answer
	unsubscribeAndTell                     // take it away, and answer that there is no right row
	subscribeAndTell                       // answer with the right row, or that there is none
	subscribeIfThereIs                     // answer only if there is a right row
	instructions                           // how many there are
	subscriptionVersion = 1
	noHash              = 0x80 // in the byte of the version: the left row is gone
)

// subscription is a left row's wish to know of a right row. It lies in the registration topic, by foreign key, and in the
// subscription store.
type subscription[K any] struct {
	hash      digest // of the left row; the answer brings it back, so that one to an older row is known as such
	live      bool   // there is a left row
	order     instruction
	key       K     // of the left row
	partition int32 // of the left row's task; -1: not said, by version 0
}

var (
	errSubscription = errors.New("not a subscription of a foreign-key join")
	errResponse     = errors.New("not a response of a foreign-key join")
	errCombinedKey  = errors.New("not a foreign key with a primary key")
)

// subscriptionSerde: version and noHash, instruction, hash, key, partition (4 bytes, from version 1 on).
type subscriptionSerde[K any] struct{ key serde.Serde[K] }

func (s subscriptionSerde[K]) Encode(dst []byte, sub subscription[K]) (_ []byte, err error) {
	version := byte(subscriptionVersion)
	if sub.partition < 0 {
		version = 0
	}
	if sub.live {
		dst = append(append(dst, version, byte(sub.order)), sub.hash[:]...)
	} else {
		dst = append(dst, version|noHash, byte(sub.order))
	}
	if dst, err = s.key.Encode(dst, sub.key); err != nil || version == 0 {
		return dst, err
	}
	return binary.BigEndian.AppendUint32(dst, uint32(sub.partition)), nil
}

func (s subscriptionSerde[K]) Decode(b []byte) (sub subscription[K], err error) {
	if len(b) < 2 || b[1] >= byte(instructions) {
		return sub, errSubscription
	}
	version := b[0] &^ noHash
	if version > subscriptionVersion {
		return sub, fmt.Errorf("%w that is known here: version %d", errSubscription, version)
	}
	sub.live, sub.order, sub.partition = b[0]&noHash == 0, instruction(b[1]), -1
	b = b[2:]
	if sub.live {
		if len(b) < len(sub.hash) {
			return sub, errSubscription
		}
		b = b[copy(sub.hash[:], b):]
	}
	if version > 0 {
		end := len(b) - 4
		if end < 0 {
			return sub, errSubscription
		}
		if sub.partition = int32(binary.BigEndian.Uint32(b[end:])); sub.partition < 0 {
			return sub, errSubscription
		}
		b = b[:end]
	}
	sub.key, err = s.key.Decode(b)
	return sub, err
}

// response is the answer to a subscription.
type response[FV any] struct {
	hash  digest // of the subscription
	live  bool   // as in the subscription
	value FV     // of the right row
	found bool   // there is one
}

// responseSerde: version 0 and noHash, hash, the right row's value. A value without bytes is none.
type responseSerde[FV any] struct{ value serde.Serde[FV] }

func (s responseSerde[FV]) Encode(dst []byte, r response[FV]) ([]byte, error) {
	if r.live {
		dst = append(append(dst, 0), r.hash[:]...)
	} else {
		dst = append(dst, noHash)
	}
	if !r.found {
		return dst, nil
	}
	return s.value.Encode(dst, r.value)
}

func (s responseSerde[FV]) Decode(b []byte) (r response[FV], err error) {
	if len(b) == 0 || b[0]&^noHash != 0 {
		return r, errResponse
	}
	r.live = b[0] == 0
	b = b[1:]
	if r.live {
		if len(b) < len(r.hash) {
			return r, errResponse
		}
		b = b[copy(r.hash[:], b):]
	}
	if r.found = len(b) > 0; r.found {
		r.value, err = s.value.Decode(b)
	}
	return r, err
}

// combinedKey is a subscription's key in the store: all subscriptions to one right row lie side by side.
type combinedKey[FK, K any] struct {
	foreign FK
	key     K
}

// combinedSerde: the length of the foreign key (4 bytes), the foreign key, the primary key.
type combinedSerde[FK, K any] struct {
	foreign serde.Serde[FK]
	key     serde.Serde[K]
}

// prefix begins the keys of all subscriptions to a right row.
func (s combinedSerde[FK, K]) prefix(dst []byte, fk FK) ([]byte, error) {
	at := len(dst)
	dst, err := s.foreign.Encode(append(dst, 0, 0, 0, 0), fk)
	if err == nil {
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	return dst, err
}

func (s combinedSerde[FK, K]) Encode(dst []byte, k combinedKey[FK, K]) ([]byte, error) {
	dst, err := s.prefix(dst, k.foreign)
	if err != nil {
		return dst, err
	}
	return s.key.Encode(dst, k.key)
}

func (s combinedSerde[FK, K]) Decode(b []byte) (k combinedKey[FK, K], err error) {
	if len(b) < 4 {
		return k, errCombinedKey
	}
	size := uint64(binary.BigEndian.Uint32(b))
	if b = b[4:]; uint64(len(b)) < size {
		return k, errCombinedKey
	}
	if k.foreign, err = s.foreign.Decode(b[:size]); err == nil {
		k.key, err = s.key.Decode(b[size:])
	}
	return k, err
}
