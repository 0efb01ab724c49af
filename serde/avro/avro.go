// Package avro encodes values as Avro binary under one given schema. It writes no schema and no schema id into the
// bytes, and it resolves no other writer's schema: reader and writer use the same one.
package avro

import (
	"fmt"

	"github.com/hamba/avro/v2"

	"github.com/moldau/moldau/serde"
)

// New is a serde for T under an Avro schema in JSON. Fields are matched by the struct tag `avro`, else by name
// (github.com/hamba/avro/v2 says how types correspond). A schema that does not parse is reported when the topology is
// built, and by every Encode and Decode.
func New[T any](schema string) serde.Serde[T] {
	// A cache of its own: two schemas may give one name two meanings.
	s, err := avro.ParseWithCache(schema, "", &avro.SchemaCache{})
	if err != nil {
		err = fmt.Errorf("avro: the schema of %T does not parse: %w", *new(T), err)
	}
	return binary[T]{avro.Config{}.Freeze(), s, err}
}

type binary[T any] struct {
	api    avro.API
	schema avro.Schema
	err    error
}

func (s binary[T]) Validate() error { return s.err }

func (s binary[T]) Encode(dst []byte, v T) ([]byte, error) {
	if s.err != nil {
		return dst, s.err
	}
	b, err := s.api.Marshal(s.schema, v)
	if err != nil {
		return dst, fmt.Errorf("avro: encoding %T: %w", v, err)
	}
	return append(dst, b...), nil
}

func (s binary[T]) Decode(b []byte) (T, error) {
	var v T
	if s.err != nil {
		return v, s.err
	}
	if err := s.api.Unmarshal(s.schema, b, &v); err != nil {
		return v, fmt.Errorf("avro: decoding %T: %w", v, err)
	}
	return v, nil
}
