package serde

import "fmt"

// A Formatter is a Serde that says in a few words what it writes. A topology's description carries it, so that a change of
// code which could not read what the last one wrote is found before it runs.
type Formatter interface{ Format() string }

// Format says what a serde writes: its own words, or else the name of its Go type. A nil serde writes nothing: "".
func Format(s any) string {
	switch s := s.(type) {
	case nil:
		return ""
	case Formatter:
		return s.Format()
	}
	return fmt.Sprintf("%T", s)
}

func (bytesSerde) Format() string   { return "bytes" }
func (stringSerde) Format() string  { return "string" }
func (int32Serde) Format() string   { return "int32" }
func (int64Serde) Format() string   { return "int64" }
func (float64Serde) Format() string { return "float64" }
func (boolSerde) Format() string    { return "bool" }
func (uuidSerde) Format() string    { return "uuid" }
func (jsonSerde[T]) Format() string { return "json" }

// Format is that of the values: null has no bytes.
func (s nullSerde[T]) Format() string { return Format(s.of) }
