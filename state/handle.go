// Package state holds the handles of durable state, and what processors and queries see of it. A handle is a name, serdes and
// settings, declared once, usually as a package variable: these declarations are the application's data dictionary. It is
// a value, and its settings return copies, so that nobody can change it afterwards.
//
// A processor opens a handle in Init and then uses a view, such as [KV] or [VersionedStore]. Writes carry the time of the record in
// hand, are taken back if the epoch fails, and are committed with the outputs and offsets of the task. Methods of these views
// have no error results: an error (a disk that cannot be read, a value that cannot be encoded) is an error of
// the record in hand, and from then on the view does nothing until the task has asked the error policy.
//
// A query reads what is committed, through [KVView], [WindowView] or [VersionedView], whose methods do return errors.
//
// The package neither stores anything itself nor decides where state lies.
package state

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Handle names a store of any kind.
type Handle interface{ Spec() *flow.StoreSpec }

// Opener gives a processor's stores to their handles: package stream's scopes are Openers.
type Opener interface {
	// OpenStore gives the task's store; the error has also been recorded, so that Init fails whether or not it is looked at.
	OpenStore(spec *flow.StoreSpec) (flow.Store, error)
	// Step is the record in hand, or the call of a timer, and the node that the view belongs to. Its time is what is written
	// gets, and it takes the first error.
	Step() (c *flow.Ctx, node int)
	// Expired counts a put of what has expired: it is dropped.
	Expired()
}

// Table is a handle that can hold a KTable.
type Table[K, V any] interface {
	Handle
	table(K, V)
}

// newSpec is the root of a handle, made by the author at the place from which this package was called.
func newSpec(kind flow.StoreKind, name string) *flow.StoreSpec {
	s := &flow.StoreSpec{Name: name, Kind: kind, At: author()}
	s.Root = s
	return s
}

// written notes how keys and values are written, and what is wrong with that.
func written(s *flow.StoreSpec, k, v any) {
	s.Key, s.Value = serde.Format(k), serde.Format(v)
	var errs []error
	for _, part := range []struct {
		name string
		of   any
	}{{"keys", k}, {"values", v}} {
		if part.of == nil {
			errs = append(errs, fmt.Errorf("there is no serde for its %s", part.name))
		} else if check, ok := part.of.(serde.Validator); ok {
			errs = append(errs, check.Validate())
		}
	}
	s.Mistake = errors.Join(errs...)
}

func author() string {
	var pcs [8]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "github.com/moldau/moldau/state.") || !more {
			return f.File + ":" + strconv.Itoa(f.Line)
		}
	}
}

func with(s *flow.StoreSpec, f func(*flow.StoreSpec)) *flow.StoreSpec {
	if s == nil {
		return nil // the zero handle, which Build names
	}
	c := *s
	f(&c)
	return &c
}

func changelog(s *flow.StoreSpec, settings map[string]string) *flow.StoreSpec {
	return with(s, func(s *flow.StoreSpec) {
		all := maps.Clone(s.Changelog)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, settings)
		s.Changelog = all
	})
}

// nilness says whether a value is Kafka's null: nil, for a V whose nil is a value.
func nilness[V any]() func(V) bool {
	switch reflect.TypeFor[V]().Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return func(v V) bool { return reflect.ValueOf(&v).Elem().IsNil() }
	}
	return func(V) bool { return false }
}

// view is what all views of processors share.
type view struct {
	opener Opener
	broken bool // OpenStore failed: Init will as well
}

// step is the record in hand; nil: it has failed.
func (v *view) step() (*flow.Ctx, int) {
	if v.broken {
		return nil, 0
	}
	c, node := v.opener.Step()
	if c.Err != nil {
		return nil, 0
	}
	return c, node
}

func fail(c *flow.Ctx, node int, err error) bool {
	if err != nil {
		c.Fail(node, err)
	}
	return err != nil
}

func utc(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
