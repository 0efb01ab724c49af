package stream

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/moldau/moldau/topology"
)

// where is the author's line: the nearest caller outside this package.
func where() string {
	at, _ := author()
	return at
}

// author is where the author calls this package: the line, and the method that is called there.
func author() (at, method string) {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "github.com/moldau/moldau/stream.") || !more {
			return f.File + ":" + strconv.Itoa(f.Line), method
		}
		method = strings.ReplaceAll(f.Function, "[...]", "")
		method = method[strings.LastIndexByte(method, '.')+1:]
	}
}

// given notes functions that the author's call must give and that are nil, or else the first record would find out. It is told of
// each whether it is there.
func (b *Builder) given(functions ...bool) {
	for _, is := range functions {
		if !is {
			at, method := author()
			b.graph.Fail(topology.ErrArgument, at, "%s is given a nil function", method)
		}
	}
}

// mine notes a stream or table, given to the author's call, that is nil or another Builder's. It is told whether it is neither.
func (b *Builder) mine(is bool) bool {
	if !is {
		at, method := author()
		b.graph.Fail(topology.ErrArgument, at, "%s is given nil, or what another Builder has made", method)
	}
	return is
}
