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
	if ours(pcs[:runtime.Callers(2, pcs[:])]) {
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

// ours says whether a panic is a bug of this module: whether its packages come before any of the author's on the stack.
func ours(stack []uintptr) bool {
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
			return own(f.Function)
		}
		if !more {
			return false
		}
	}
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

// own says whether a function belongs to the parts of this module that call user functions, or to what they are built on.
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
