package serde

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"

	"github.com/google/uuid"
)

// The serdes of the basic types. Their types have no fields, so nobody can change them.
var (
	// Bytes is the bytes themselves (Kafka's ByteArraySerializer). Decode copies.
	Bytes bytesSerde
	// String is its bytes, by convention UTF-8 (StringSerializer). Bytes that are not UTF-8 pass unchanged,
	// where Java would replace them.
	String stringSerde
	// Int32 is 4 bytes, big endian (IntegerSerializer).
	Int32 int32Serde
	// Int64 is 8 bytes, big endian (LongSerializer).
	Int64 int64Serde
	// Float64 is the 8 bytes of an IEEE 754 double, big endian (DoubleSerializer).
	Float64 float64Serde
	// Bool is one byte, 0 or 1 (BooleanSerializer).
	Bool boolSerde
	// UUID is its text in 36 lower-case characters (UUIDSerializer).
	UUID uuidSerde
)

type bytesSerde struct{}

func (bytesSerde) Encode(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (bytesSerde) Decode(b []byte) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	return append(make([]byte, 0, len(b)), b...), nil
}

type stringSerde struct{}

func (stringSerde) Encode(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }
func (stringSerde) Decode(b []byte) (string, error)             { return string(b), nil }

type int32Serde struct{}

func (int32Serde) Encode(dst []byte, v int32) ([]byte, error) {
	return binary.BigEndian.AppendUint32(dst, uint32(v)), nil
}
func (int32Serde) Decode(b []byte) (int32, error) {
	if len(b) != 4 {
		return 0, lengthError("an int32", 4, b)
	}
	return int32(binary.BigEndian.Uint32(b)), nil
}

type int64Serde struct{}

func (int64Serde) Encode(dst []byte, v int64) ([]byte, error) {
	return binary.BigEndian.AppendUint64(dst, uint64(v)), nil
}
func (int64Serde) Decode(b []byte) (int64, error) {
	if len(b) != 8 {
		return 0, lengthError("an int64", 8, b)
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

type float64Serde struct{}

func (float64Serde) Encode(dst []byte, v float64) ([]byte, error) {
	return binary.BigEndian.AppendUint64(dst, math.Float64bits(v)), nil
}
func (float64Serde) Decode(b []byte) (float64, error) {
	if len(b) != 8 {
		return 0, lengthError("a float64", 8, b)
	}
	return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
}

type boolSerde struct{}

func (boolSerde) Encode(dst []byte, v bool) ([]byte, error) {
	if v {
		return append(dst, 1), nil
	}
	return append(dst, 0), nil
}
func (boolSerde) Decode(b []byte) (bool, error) {
	if len(b) != 1 {
		return false, lengthError("a bool", 1, b)
	}
	if b[0] > 1 {
		return false, fmt.Errorf("serde: a bool is the byte 0 or 1, got %#02x", b[0])
	}
	return b[0] == 1, nil
}

type uuidSerde struct{}

const uuidLen = 36

func (uuidSerde) Encode(dst []byte, v uuid.UUID) ([]byte, error) {
	for i, part := range [...][]byte{v[0:4], v[4:6], v[6:8], v[8:10], v[10:16]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, part)
	}
	return dst, nil
}
func (uuidSerde) Decode(b []byte) (uuid.UUID, error) {
	if len(b) != uuidLen {
		return uuid.UUID{}, lengthError("the text of a UUID", uuidLen, b)
	}
	v, err := uuid.ParseBytes(b)
	if err != nil {
		return uuid.UUID{}, fmt.Errorf("serde: %q is not the text of a UUID: %w", b, err)
	}
	return v, nil
}

// lengthError shows the first bytes as well: they tell text from numbers, which is the usual mistake.
func lengthError(what string, want int, b []byte) error {
	return fmt.Errorf("serde: %s takes %d bytes, got %d: %.16q", what, want, len(b), b)
}
