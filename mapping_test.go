package moldau_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exported are the names that a package gives to others: X, and T.X for methods and fields.
func exported(t *testing.T, dir string, names map[string]bool, prefixes ...string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	add := func(name string) {
		for _, p := range prefixes {
			names[p+name] = true
		}
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					add(d.Name.Name)
				} else {
					add(receiver(d.Recv.List[0].Type) + "." + d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.ValueSpec:
						for _, n := range s.Names {
							add(n.Name)
						}
					case *ast.TypeSpec:
						add(s.Name.Name)
						for _, m := range members(s.Type) {
							add(s.Name.Name + "." + m)
						}
					}
				}
			}
		}
	}
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func members(e ast.Expr) (names []string) {
	var fields *ast.FieldList
	switch e := e.(type) {
	case *ast.StructType:
		fields = e.Fields
	case *ast.InterfaceType:
		fields = e.Methods
	default:
		return nil
	}
	for _, f := range fields.List {
		for _, n := range f.Names {
			names = append(names, n.Name)
		}
	}
	return names
}

// What the page that maps Kafka Streams to Moldau names is there.
func TestWhatTheMappingNamesExists(t *testing.T) {
	names := map[string]bool{}
	for _, dir := range []string{".", "stream", "state"} {
		exported(t, dir, names, "", filepath.Base(dir)+".")
	}
	for _, dir := range []string{"window", "serde", "topology", "streamtest", "serde/avro", "serde/protobuf"} {
		exported(t, dir, names, filepath.Base(dir)+".")
	}
	missing := missingNames(t, names)
	if len(missing) > 0 {
		t.Errorf("docs/MAPPING.md names what is not there: %s", strings.Join(missing, ", "))
	}
	delete(names, "KStream.Filter")
	if missing := missingNames(t, names); len(missing) != 1 || missing[0] != "KStream.Filter" {
		t.Errorf("a method that is gone is not seen: %q", missing)
	}
}

// What an author can call is on the page: an operator that is not cannot be found by those who come from Kafka Streams.
func TestTheMappingNamesWhatThereIs(t *testing.T) {
	names := map[string]bool{}
	for _, dir := range []string{".", "stream", "state"} {
		exported(t, dir, names, "")
	}
	page, err := os.ReadFile("docs/MAPPING.md")
	if err != nil {
		t.Fatal(err)
	}
	onPage, methods := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile("`([A-Za-z.]+)`").FindAllStringSubmatch(string(page), -1) {
		onPage[m[1]] = true
		if _, method, ok := strings.Cut(m[1], "."); ok {
			methods[method] = true
		}
	}
	// What joins packages of ours, or says itself.
	seam := regexp.MustCompile(`\.(Spec|View|Keys|Values|Step|OpenStore|Expired|Validate|String|Error|Unwrap|Parts|Stores|Err|Serdes|Close|Wall|Due|Next)$`)
	fields := regexp.MustCompile(`^(Record|Entry|Version|Call|Async|Fold|JoinParts|ValueTransformer|BrokerConfig|Reset\w+)\.`)
	for name := range names {
		kind, method, ok := strings.Cut(name, ".")
		if !ok || fields.MatchString(name) || !ast.IsExported(kind) || !ast.IsExported(method) || seam.MatchString(name) {
			continue
		}
		// Stores, handles, contexts and readers come in kinds that share their methods: of these one is enough.
		exact := kind == "KStream" || kind == "KTable" || kind == "Builder" || kind == "App" || kind == "Config"
		if !onPage[name] && (exact || !methods[method]) {
			t.Errorf("docs/MAPPING.md says nothing of %s", name)
		}
	}
}

func missingNames(t *testing.T, names map[string]bool) (missing []string) {
	page, err := os.ReadFile("docs/MAPPING.md")
	if err != nil {
		t.Fatal(err)
	}
	rows, seen := 0, map[string]bool{}
	for line := range strings.SplitSeq(string(page), "\n") {
		cells := strings.Split(strings.ReplaceAll(line, `\|`, ""), "|")
		if len(cells) < 4 || strings.HasPrefix(cells[1], "---") {
			continue
		}
		rows++
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[2], -1) {
			if !names[m[1]] && !seen[m[1]] {
				missing = append(missing, m[1])
				seen[m[1]] = true
			}
		}
	}
	if rows < 100 {
		t.Errorf("only %d rows are read", rows)
	}
	return missing
}
