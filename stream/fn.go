package stream

import (
	"reflect"
	"time"
	"unsafe"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// fn is an operator at work. It leads to no type of the DSL, so any type argument is allowed: fn[K, change[V]],
// fn[window.Key[K], V]. Where Ctx.KeyNull or Ctx.Null is set, k or v is zero.
type fn[K, V any] func(c *flow.Ctx, k K, v V)

// fan joins the children into one function. Children restore what they change in the context.
func fan[K, V any](children []any) fn[K, V] {
	switch len(children) {
	case 0:
		return func(*flow.Ctx, K, V) {}
	case 1:
		return children[0].(fn[K, V])
	}
	fns := make([]fn[K, V], len(children))
	for i, c := range children {
		fns[i] = c.(fn[K, V])
	}
	return func(c *flow.Ctx, k K, v V) {
		for _, f := range fns {
			if f(c, k, v); c.Err != nil {
				return
			}
		}
	}
}

// add puts an operator from [K, V] to [K2, V2] into the graph.
func add[K, V, K2, V2 any](b *Builder, n *topology.Node, wire func(env flow.Env, down fn[K2, V2]) (fn[K, V], error)) *topology.Node {
	if n.At == "" {
		n.At = where()
	}
	n.Wire = func(env flow.Env, children []any) (any, error) {
		f, err := wire(env, fan[K2, V2](children))
		return f, err
	}
	return b.graph.Add(n)
}

// step is add for an operator on the record alone: no store, no topic, no timer.
func step[K, V, K2, V2 any](b *Builder, kind string, from *topology.Node, rekeys bool, wire func(id int, down fn[K2, V2]) fn[K, V]) *topology.Node {
	n := &topology.Node{Kind: kind, Parents: []*topology.Node{from}, Rekeys: rekeys}
	return add(b, n, func(_ flow.Env, down fn[K2, V2]) (fn[K, V], error) { return wire(n.ID, down), nil })
}

// null knows whether nil is a value of T: then nil is Kafka's null and functions see it.
type null[T any] struct{ is bool }

func nullness[T any]() null[T] {
	switch reflect.TypeFor[T]().Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Chan, reflect.Func:
		return null[T]{true}
	}
	return null[T]{}
}

// of says whether v is nil. In all the kinds that can be, the first word is zero exactly then.
func (n null[T]) of(v T) bool { return n.is && *(*unsafe.Pointer)(unsafe.Pointer(&v)) == nil }

// hides says whether a function of T must not be called: the record is null and T has no nil to say so.
func (n null[T]) hides(isNull bool) bool { return isNull && !n.is }

// shares says whether a copy of a T can be written through: it holds pointers, slices, maps or interfaces.
func shares[T any]() bool { return sharing(reflect.TypeFor[T]()) }

func sharing(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if sharing(t.Field(i).Type) {
				return t != reflect.TypeFor[time.Time]()
			}
		}
		return false
	case reflect.Array:
		return sharing(t.Elem())
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return true
	}
	return false
}
