package serde

import (
	"bytes"
	v1 "encoding/json"
	"encoding/json/v2"
	"fmt"
)

// JSON is encoding/json: field tags, omitted fields and Marshalers as there. Unknown fields are ignored and the keys of
// maps are sorted.
func JSON[T any]() Serde[T] { return jsonSerde[T]{} }

type jsonSerde[T any] struct{}

// Encode goes by version 2 because that one can append; the options make it write what version 1 writes.
func (jsonSerde[T]) Encode(dst []byte, v T) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	if err := json.MarshalWrite(out, &v, v1.DefaultOptionsV1()); err != nil {
		return dst, fmt.Errorf("serde: %T as JSON: %w", v, err)
	}
	return out.Bytes(), nil
}

func (jsonSerde[T]) Decode(b []byte) (T, error) {
	var v T
	if err := json.Unmarshal(b, &v, v1.DefaultOptionsV1()); err != nil {
		return v, fmt.Errorf("serde: JSON as %T: %w", v, err)
	}
	return v, nil
}
