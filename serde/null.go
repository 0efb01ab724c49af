package serde

import "errors"

// Null gives Kafka's null a value: the nil pointer. Everything else is encoded by s.
func Null[T any](s Serde[T]) Serde[*T] { return nullSerde[T]{s} }

var errNull = errors.New("serde: nil is Kafka's null and has no bytes; write the record without a value instead")

type nullSerde[T any] struct{ of Serde[T] }

// Encode refuses nil: written as no bytes it would come back as an empty value.
func (s nullSerde[T]) Encode(dst []byte, v *T) ([]byte, error) {
	if v == nil {
		return dst, errNull
	}
	return s.of.Encode(dst, *v)
}

func (s nullSerde[T]) Decode(b []byte) (*T, error) {
	if b == nil {
		return nil, nil
	}
	v, err := s.of.Decode(b)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

func (s nullSerde[T]) Validate() error {
	if v, ok := s.of.(Validator); ok {
		return v.Validate()
	}
	return nil
}
