package lint

import (
	"go/ast"
	"go/token"
	"go/types"
)

const stateReason = "no mutable package state: two applications in one process would share it; make it a field of what owns it"

// state forbids package variables that change. A variable may be a constant in all but name (an error, a table, a
// handle); it may not be written to after its declaration, hold something whose only use is to change, or be exported
// with a type that any importer can write into.
func (r *report) state() {
	for _, f := range r.files {
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			for _, spec := range decl.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					r.variable(name)
				}
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						r.written(e, "is assigned to")
					}
				}
			case *ast.IncDecStmt:
				r.written(n.X, "is assigned to")
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					r.written(n.Key, "is assigned to")
					r.written(n.Value, "is assigned to")
				}
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					r.written(n.X, "has its address taken")
				}
			case *ast.CallExpr:
				if fn, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 {
					if b, ok := r.info.Uses[fn].(*types.Builtin); ok && (b.Name() == "delete" || b.Name() == "clear") {
						r.written(n.Args[0], "is emptied")
					}
				}
			}
			return true
		})
	}
}

// variable judges a declaration by its type.
func (r *report) variable(name *ast.Ident) {
	v, ok := r.info.Defs[name].(*types.Var)
	if !ok || name.Name == "_" {
		return
	}
	if inner := r.changing(v.Type(), 0); inner != "" {
		r.add(name.Pos(), "state", "%s holds a %s: %s", name.Name, inner, stateReason)
		return
	}
	if !v.Exported() {
		return
	}
	switch v.Type().Underlying().(type) {
	case *types.Slice, *types.Map, *types.Array, *types.Basic:
		r.add(name.Pos(), "state", "%s can be written to by every importer: make it a function, or a constant", name.Name)
	}
}

// changing names the first part of a type that exists only to change: a lock, an atomic, a pool, a channel.
func (r *report) changing(t types.Type, depth int) string {
	if named, ok := types.Unalias(t).(*types.Named); ok {
		if p := named.Obj().Pkg(); p != nil && (p.Path() == "sync" || p.Path() == "sync/atomic") {
			return p.Name() + "." + named.Obj().Name()
		}
	}
	switch u := t.Underlying().(type) {
	case *types.Chan:
		return "channel"
	case *types.Pointer:
		if depth < 3 {
			return r.changing(u.Elem(), depth+1)
		}
	case *types.Struct:
		for f := range u.Fields() {
			if inner := r.changing(f.Type(), depth+1); inner != "" && depth < 3 && !r.foreign(t) {
				return inner
			}
		}
	}
	return ""
}

// foreign types keep their locks to themselves: a regexp.Regexp is a value to whoever holds it.
func (r *report) foreign(t types.Type) bool {
	named, ok := types.Unalias(t).(*types.Named)
	return ok && named.Obj().Pkg() != nil && !within(named.Obj().Pkg().Path(), r.root)
}

// written reports a write that reaches a package variable of this package: itself, a field or an element.
func (r *report) written(e ast.Expr, how string) {
	at := e
	for e != nil {
		switch x := e.(type) {
		case *ast.ParenExpr:
			e = x.X
		case *ast.SelectorExpr:
			if r.info.Types[x.X].Type == nil { // a package's name: the variable is x.Sel
				e = x.Sel
			} else {
				e = x.X
			}
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.Ident:
			v, ok := r.info.Uses[x].(*types.Var)
			if ok && v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
				r.add(at.Pos(), "state", "the package variable %s %s: %s", x.Name, how, stateReason)
			}
			return
		default:
			return
		}
	}
}
