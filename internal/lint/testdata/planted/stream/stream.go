// Package stream imports what it must not.
package stream

import (
	"github.com/hamba/avro/v2" // want "only who wants Avro links it"

	"github.com/moldau/moldau/internal/lint/testdata/planted/internal/worker" // want "the runtime must not be in it"
)

// Parse uses its imports.
func Parse(s string) (avro.Schema, error) {
	worker.Run()
	return avro.Parse(s)
}
