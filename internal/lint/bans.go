package lint

import (
	"go/ast"
	"go/types"
	"slices"
	"strconv"
	"strings"
)

// core is the rooms whose every step must be repeatable: the same records and the same times give the same bytes. That
// is what lets a test be a text file and a crash be a line in it.
var core = [...]string{
	"serde", "window", "state", "topology", "stream",
	"internal/assign", "internal/commit", "internal/flow", "internal/restore", "internal/table", "internal/task", "internal/tier",
	"internal/broker/group", "internal/broker/txn", "internal/broker/wire",
}

func isCore(room string) bool {
	return slices.ContainsFunc(core[:], func(c string) bool { return within(room, c) })
}

// within says whether room is parent or below it.
func within(room, parent string) bool {
	return room == parent || strings.HasPrefix(room, parent+"/")
}

// A ban forbids functions of the standard library, or whole packages, in the core.
type ban struct {
	rule  string
	path  string
	names []string // functions; none: the import itself
	why   string
}

const (
	clockReason = "time is passed in; a step that reads the clock cannot be repeated"
	osReason    = "files, processes and the network come through a seam, so that tests can fail them"
	randReason  = "chance is passed in, seeded; else a failure cannot be repeated"
	goReason    = "the core starts no goroutine: every one has an owner at the edge that starts, stops and awaits it"
	orderReason = "map order must not reach an output; sort the keys, or say why order cannot matter"
	globalRand  = "chance is passed in as a *rand.Rand of a known seed"
)

var bans = [...]ban{
	{"clock", "time", []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}, clockReason},
	{"os", "os", nil, osReason},
	{"os", "os/exec", nil, osReason},
	{"os", "os/signal", nil, osReason},
	{"os", "net", nil, osReason},
	{"os", "net/http", nil, osReason},
	{"os", "syscall", nil, osReason},
	{"rand", "crypto/rand", nil, randReason},
	{"rand", "math/rand", nil, globalRand},
	{"rand", "math/rand/v2", []string{"Int", "IntN", "Int32", "Int32N", "Int64", "Int64N", "Uint", "UintN", "Uint32", "Uint32N",
		"Uint64", "Uint64N", "Float32", "Float64", "NormFloat64", "ExpFloat64", "N", "Perm", "Shuffle"}, globalRand},
	{"rand", "hash/maphash", []string{"MakeSeed"}, "maphash seeds differ from run to run"},
	{"ordered", "maps", []string{"All", "Keys", "Values"}, orderReason},
}

// bans looks for what the core must not do.
func (r *report) bans() {
	for _, f := range r.files {
		for _, spec := range f.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			for _, b := range bans {
				if b.names == nil && path == b.path {
					r.add(spec.Pos(), b.rule, "import of %s: %s", path, b.why)
				}
			}
		}
		var sorted []ast.Node // arguments whose order is mended at once
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				r.add(n.Pos(), "goroutine", "%s", goReason)
			case *ast.RangeStmt:
				if t := r.info.TypeOf(n.X); t != nil && isMap(t) {
					r.add(n.Pos(), "ordered", "range over a map: %s", orderReason)
				}
			case *ast.CallExpr:
				if fn := r.called(n.Fun); fn != nil && sorts(fn) {
					sorted = append(sorted, n.Args[0])
				}
			case *ast.SelectorExpr:
				fn := r.called(n)
				if fn == nil || slices.ContainsFunc(sorted, func(a ast.Node) bool { return a.Pos() <= n.Pos() && n.End() <= a.End() }) {
					return true
				}
				r.function(n, fn)
			}
			return true
		})
	}
}

// called is the function that an expression names; nil if it names none.
func (r *report) called(e ast.Expr) *types.Func {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		fn, _ := r.info.Uses[e.Sel].(*types.Func)
		return fn
	case *ast.IndexExpr:
		return r.called(e.X)
	}
	return nil
}

// sorts names the functions that bring keys into order before anybody sees them.
func sorts(fn *types.Func) bool {
	return fn.Pkg() != nil && fn.Pkg().Path() == "slices" && strings.HasPrefix(fn.Name(), "Sorted")
}

func (r *report) function(at ast.Node, fn *types.Func) {
	if fn.Pkg() == nil {
		return
	}
	path, name := fn.Pkg().Path(), fn.Name()
	if recv := fn.Signature().Recv(); recv != nil {
		switch {
		case name == "Go" && (path == "sync" || strings.HasSuffix(path, "/errgroup")):
			r.add(at.Pos(), "goroutine", "%s", goReason)
		case path == "reflect" && (name == "MapRange" || name == "MapKeys" || name == "Seq" || name == "Seq2"):
			r.add(at.Pos(), "ordered", "%s: %s", name, orderReason)
		case path == "sync" && name == "Range":
			r.add(at.Pos(), "ordered", "sync.Map.Range: %s", orderReason)
		}
		return
	}
	for _, b := range bans {
		if b.path == path && slices.Contains(b.names, name) {
			r.add(at.Pos(), b.rule, "%s.%s: %s", path, name, b.why)
		}
	}
}

func isMap(t types.Type) bool {
	_, ok := t.Underlying().(*types.Map)
	return ok
}
