// Package lint holds the rules of the house over its own source: which room may import which, what the core packages
// must not do, and what no file may contain. Each rule comes with its reason, which is printed with every finding.
//
// It runs as a test and nothing imports it. It judges only what it can see for certain; taste is left to people.
//
// A line that breaks a rule for a good reason says so at its end or on the line above: //lint:RULE reason. A directive
// without a reason, and one that excuses nothing, are findings too.
package lint

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// A Finding is one place that breaks a rule.
type Finding struct {
	Pos  token.Position
	Rule string
	Text string
}

func (f Finding) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", f.Pos.Filename, f.Pos.Line, f.Rule, f.Text)
}

// Code judges packages as go list names them below dir. root is the import path that rooms are relative to, the
// module's own except for planted code.
func Code(dir, root string, patterns ...string) ([]Finding, error) {
	pkgs, err := load(dir, root, patterns...)
	if err != nil {
		return nil, err
	}
	var all []Finding
	for _, p := range pkgs {
		r := &report{pkg: p, excuses: p.excuses()}
		r.imports()
		r.inits()
		r.state()
		if isCore(p.room) {
			r.bans()
		}
		all = append(all, r.finish()...)
	}
	slices.SortFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Pos.Filename, b.Pos.Filename), cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Text, b.Text))
	})
	return all, nil
}

// report gathers the findings of one package.
type report struct {
	*pkg
	excuses  map[line]*excuse
	findings []Finding
}

type line struct {
	file string
	n    int
}

// An excuse is one //lint:RULE directive.
type excuse struct {
	rule, reason string
	pos          token.Position
	used         bool
}

func (r *report) add(at token.Pos, rule, format string, args ...any) {
	pos := r.fset.Position(at)
	for _, n := range []int{pos.Line, pos.Line - 1} {
		if e := r.excuses[line{pos.Filename, n}]; e != nil && e.rule == rule {
			e.used = true
			return
		}
	}
	r.findings = append(r.findings, Finding{pos, rule, fmt.Sprintf(format, args...)})
}

func (r *report) finish() []Finding {
	for _, e := range r.excuses {
		switch {
		case e.reason == "":
			r.findings = append(r.findings, Finding{e.pos, e.rule, "the directive gives no reason"})
		case !e.used:
			r.findings = append(r.findings, Finding{e.pos, e.rule, "the directive excuses nothing here"})
		}
	}
	return r.findings
}

// rules are the names a directive may use. Others are left to the tools that know them, such as staticcheck's ignore.
var rules = [...]string{"clock", "goroutine", "import", "init", "ordered", "os", "rand", "state"}

func (p *pkg) excuses() map[line]*excuse {
	found := map[line]*excuse{}
	for _, f := range p.files {
		for _, group := range f.Comments {
			for _, c := range group.List {
				text, ok := strings.CutPrefix(c.Text, "//lint:")
				if !ok {
					continue
				}
				rule, reason, _ := strings.Cut(text, " ")
				if slices.Contains(rules[:], rule) {
					pos := p.fset.Position(c.Pos())
					found[line{pos.Filename, pos.Line}] = &excuse{rule: rule, reason: strings.TrimSpace(reason), pos: pos}
				}
			}
		}
	}
	return found
}

// inits forbids init functions everywhere.
func (r *report) inits() {
	for _, f := range r.files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				r.add(fn.Pos(), "init", "no init functions: what a program does begins in main, in an order that can be read")
			}
		}
	}
}
