package moldau_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/stream"
)

// go doc shows of an alias its comment alone, so that has the fields, all of them and no others.
func TestAliasesShowTheirFields(t *testing.T) {
	for name, of := range map[string]struct {
		file string
		typ  reflect.Type
	}{
		"Errors":      {"config.go", reflect.TypeFor[moldau.Errors]()},
		"ErrorPolicy": {"config.go", reflect.TypeFor[moldau.ErrorPolicy]()},
		"RecordError": {"config.go", reflect.TypeFor[moldau.RecordError]()},
		"PanicError":  {"config.go", reflect.TypeFor[moldau.PanicError]()},
		"Event":       {"config.go", reflect.TypeFor[moldau.Event]()},
		"NotHere":     {"errors.go", reflect.TypeFor[moldau.NotHere]()},
		"TaskStatus":  {"health.go", reflect.TypeFor[moldau.TaskStatus]()},
		"Header":      {"stream/record.go", reflect.TypeFor[stream.Header]()},
	} {
		shown := fieldsInComment(t, of.file, name)
		for i := range of.typ.NumField() {
			f := of.typ.Field(i).Name
			if !shown[f] {
				t.Errorf("%s: the comment of %s has no field %s", of.file, name, f)
			}
			delete(shown, f)
		}
		for f := range shown {
			t.Errorf("%s: the comment of %s has a field %s, which is not there", of.file, name, f)
		}
	}
}

// fieldsInComment are the fields of the struct in the comment of a type.
func fieldsInComment(t *testing.T, file, name string) map[string]bool {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || len(g.Specs) != 1 {
			continue
		}
		s, ok := g.Specs[0].(*ast.TypeSpec)
		if !ok || s.Name.Name != name {
			continue
		}
		_, block, ok := strings.Cut(g.Doc.Text(), "type "+name+" struct {\n")
		if !ok {
			t.Fatalf("%s: the comment of %s has no struct", file, name)
		}
		shown := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^\t\t([A-Z]\w*(?:, [A-Z]\w*)*) `).FindAllStringSubmatch(block, -1) {
			for f := range strings.SplitSeq(m[1], ", ") {
				shown[f] = true
			}
		}
		return shown
	}
	t.Fatalf("%s has no type %s", file, name)
	return nil
}
