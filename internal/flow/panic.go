package flow

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Panic is a user function that panicked, as an error. Stack is that of the goroutine where it did.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) Error() string { return fmt.Sprintf("panic: %v\n\n%s", p.Value, p.Stack) }

// Unwrap is the value that was panicked with, if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// Recover is deferred by whoever calls user functions: a panic becomes the error of the record in hand, in the operator
// whose function was called last. A panic in our own code is a bug and goes on.
func (c *Ctx) Recover() {
	v := recover()
	if v == nil {
		return
	}
	var pcs [64]uintptr
	if at := origin(pcs[:runtime.Callers(2, pcs[:])]); unopened(v, at) {
		v = fmt.Errorf("%w: a store is used that has not been opened; keep what its handle's Open gives in Init", v.(error))
	} else if own(at) {
		panic(v)
	}
	// What it was about to write is not known.
	c.Err, c.Fatal, c.Wrote = nil, false, true
	c.Fail(c.Node, &Panic{Value: v, Stack: debug.Stack()})
}

// Safely calls a user function outside of any record.
func Safely(f func() error) (err error) {
	var c Ctx
	defer func() {
		if c.Err != nil {
			err = c.Err
		}
	}()
	defer c.Recover()
	return f()
}

// origin is the function that panicked, or of those that called it the first that is not the standard library's; "" if there is none.
func origin(stack []uintptr) string {
	frames := runtime.CallersFrames(stack)
	panicked := false
	var module string
	if info, ok := debug.ReadBuildInfo(); ok {
		module = info.Main.Path
	}
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicked = true
		case !panicked || standard(f.Function, module): // ours, recovering; or the standard library
		default:
			return f.Function
		}
		if !more {
			return ""
		}
	}
}

// unopened says whether a panic is that of a nil view of a store, such as a field that its processor's Init has not set: a method
// of package state that meets a nil pointer itself.
func unopened(v any, at string) bool {
	err, ok := v.(runtime.Error)
	return ok && strings.HasPrefix(at, "github.com/moldau/moldau/state.(*") && strings.Contains(err.Error(), "nil pointer")
}

// standard says whether a function is the standard library's, in a program of the module given: the path of any other has a dot in its
// first part, or is main, or within the module, whose path need not have one.
func standard(function, module string) bool {
	first, _, within := strings.Cut(function, "/")
	switch {
	case within && strings.Contains(first, "."), strings.HasPrefix(function, "main."):
		return false
	case module == "":
		return true
	}
	rest, ok := strings.CutPrefix(function, module)
	return !ok || !strings.HasPrefix(rest, ".") && !strings.HasPrefix(rest, "/") && !strings.HasPrefix(rest, "_test.")
}

// own says whether a function belongs to the parts of this module that call user functions, or to what they are built on: a panic in
// one of them is a bug of this module.
func own(function string) bool {
	if strings.HasPrefix(function, "github.com/cockroachdb/") {
		return true
	}
	rest, ok := strings.CutPrefix(function, "github.com/moldau/moldau/")
	if !ok {
		return false
	}
	for _, room := range [...]string{"stream.", "state.", "serde.", "window.", "topology.", "internal/flow.", "internal/table.", "internal/task.", "internal/tier."} {
		if strings.HasPrefix(rest, room) {
			return true
		}
	}
	return false
}
