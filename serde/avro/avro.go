// Package avro encodes values as Avro binary under one given schema. It writes no schema and no schema id into the
// bytes, and it resolves no other writer's schema: reader and writer use the same one.
package avro

import (
	"fmt"
	"io"
	"sync"

	"github.com/hamba/avro/v2"

	"github.com/moldau/moldau/serde"
)

// Bytes that are not Avro may claim any length; these bounds keep such a claim from taking all memory.
const (
	maxBytes = 64 << 20 // of one string or bytes
	maxItems = 1 << 20  // of one array
)

// New is a serde for T under an Avro schema in JSON. Fields are matched by the struct tag `avro`, else by name
// (github.com/hamba/avro/v2 says how types correspond). A string takes at most 64 MiB, an array 1,048,576 items. A
// schema that does not parse is reported when the topology is built, and by every Encode and Decode.
func New[T any](schema string) serde.Serde[T] {
	s := &binary[T]{api: avro.Config{MaxByteSliceSize: maxBytes, MaxSliceAllocSize: maxItems}.Freeze()}
	s.readers.New = func() any { return avro.NewReader(nil, 0, avro.WithReaderConfig(s.api)) }
	var err error
	// A cache of its own: two schemas may give one name two meanings.
	if s.schema, err = avro.ParseWithCache(schema, "", &avro.SchemaCache{}); err != nil {
		s.err = fmt.Errorf("avro: the schema of %T does not parse: %w", *new(T), err)
	}
	return s
}

type binary[T any] struct {
	api     avro.API
	schema  avro.Schema
	err     error
	readers sync.Pool // of *avro.Reader
}

func (s *binary[T]) Validate() error { return s.err }

// Format names the schema.
func (s *binary[T]) Format() string {
	if named, ok := s.schema.(avro.NamedSchema); ok {
		return "avro " + named.FullName()
	}
	return "avro"
}

func (s *binary[T]) Encode(dst []byte, v T) ([]byte, error) {
	if s.err != nil {
		return dst, s.err
	}
	b, err := s.api.Marshal(s.schema, v)
	if err != nil {
		return dst, fmt.Errorf("avro: encoding %T: %w", v, err)
	}
	return append(dst, b...), nil
}

// Decode uses a Reader because avro.Unmarshal is content with bytes left over, the sign of another schema or of a
// registry's prefix.
func (s *binary[T]) Decode(b []byte) (T, error) {
	var v T
	if s.err != nil {
		return v, s.err
	}
	r := s.readers.Get().(*avro.Reader)
	defer func() {
		r.Reset(nil)
		s.readers.Put(r)
	}()
	r.Error = nil
	r.Reset(b).ReadVal(s.schema, &v)
	if r.Error != nil && r.Error != io.EOF {
		return v, fmt.Errorf("avro: decoding %T: %w", v, r.Error)
	}
	if r.Error == nil {
		if r.Peek(); r.Error == nil {
			return v, fmt.Errorf("avro: decoding %T: bytes are left over after the value; they were written with another schema", v)
		}
	}
	return v, nil
}
