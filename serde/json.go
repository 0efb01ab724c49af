package serde

import (
	"encoding/json"
	"fmt"
)

// JSON is encoding/json: field tags, omitted fields and Marshalers as there. Unknown fields are ignored and map keys
// are sorted.
func JSON[T any]() Serde[T] { return jsonSerde[T]{} }

type jsonSerde[T any] struct{}

func (jsonSerde[T]) Encode(dst []byte, v T) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("serde: %T as JSON: %w", v, err)
	}
	return append(dst, b...), nil
}

func (jsonSerde[T]) Decode(b []byte) (T, error) {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("serde: JSON as %T: %w", v, err)
	}
	return v, nil
}
