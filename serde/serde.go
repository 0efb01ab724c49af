// Package serde turns values into bytes and back. The bytes are those of Kafka's own Java serializers, so that a topic
// may be shared with a Java program. It knows nothing of topics, clusters or schema registries.
//
// Null has no bytes: it is a bit of the record, not something a Serde writes. Whoever calls a Serde asks first whether
// a value is null; [Null] is for those who want to see it.
package serde

// A Serde encodes and decodes values of one type. It belongs to a handle, and a handle is shared by every task, so it
// must be safe for concurrent use. Equal values should give equal bytes: the bytes of a key decide its partition.
type Serde[T any] interface {
	// Encode appends the encoding of v to dst and returns the longer slice. It does not keep dst. After an error what
	// was appended is worthless.
	Encode(dst []byte, v T) ([]byte, error)
	// Decode reads a value that takes up all of b. The value must not alias b, whose memory is used again.
	Decode(b []byte) (T, error)
}

// A Validator is a Serde that can be wrongly made, for instance of a schema that does not parse. Building a
// topology asks it; until then every Encode and Decode gives the same error.
type Validator interface{ Validate() error }
