// Package protobuf encodes generated messages in the Protocol Buffers wire format, without a schema id in front.
package protobuf

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/moldau/moldau/serde"
)

// New is a serde for the generated message T, a pointer: protobuf.New[*pb.Flight](). Encoding is deterministic
// within one build of the program, not across versions of the protobuf module: do not use messages as keys.
func New[T proto.Message]() serde.Serde[T] { return message[T]{} }

type message[T proto.Message] struct{}

var errNotGenerated = errors.New("protobuf: New wants a generated message type such as *pb.Flight, not an interface")

func (message[T]) Validate() error {
	var zero T
	if any(zero) == nil {
		return errNotGenerated
	}
	return nil
}

// Format names the message.
func (s message[T]) Format() string {
	var zero T
	if s.Validate() != nil {
		return "protobuf"
	}
	return "protobuf " + string(zero.ProtoReflect().Descriptor().FullName())
}

func (message[T]) Encode(dst []byte, v T) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(dst, v)
	if err != nil {
		return dst, fmt.Errorf("protobuf: encoding %T: %w", v, err)
	}
	return b, nil
}

func (s message[T]) Decode(b []byte) (T, error) {
	var zero T
	if err := s.Validate(); err != nil {
		return zero, err
	}
	v := zero.ProtoReflect().New().Interface().(T)
	if err := proto.Unmarshal(b, v); err != nil {
		return zero, fmt.Errorf("protobuf: decoding %T: %w", zero, err)
	}
	return v, nil
}
