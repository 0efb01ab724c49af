package stream_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// made is one of each kind of thing that has operators, of one Builder. In the zero value all are nil.
type made struct {
	b        *stream.Builder
	s        *stream.KStream[string, string]
	w        *stream.WindowedKStream[string, string]
	t        *stream.KTable[string, string]
	wt       *stream.WindowedKTable[string, string]
	g        *stream.GlobalKTable[string, string]
	by       *stream.KGroupedStream[string, string]
	rows     *stream.KGroupedTable[string, string]
	windows  *stream.TimeWindowedKStream[string, string]
	sessions *stream.SessionWindowedKStream[string, string]
	co       *stream.CogroupedKStream[string, string]
}

var (
	givenTable   = state.NewKeyValue("given-table", serde.String, serde.String)
	givenGlobal  = state.NewKeyValue("given-global", serde.String, serde.String)
	givenGroups  = stream.NewRepartition("given-groups", serde.String, serde.String)
	givenWindows = state.NewWindow("given-windows", serde.String, serde.String)
	givenOthers  = stream.NewTopic("given-others", serde.String, serde.String)
	givenKV      = state.NewKeyValue("given-kv", serde.String, serde.String)
	givenWindow  = state.NewWindow("given-window", serde.String, serde.String)
	givenSession = state.NewSession("given-session", serde.String, serde.String)
)

func one(a, _ string) string { return a }

func makeAll() (m made) {
	m.b = stream.NewBuilder()
	m.s, m.t, m.g = m.b.Stream(text), m.b.Table(rows, givenTable), m.b.GlobalTable(givenOthers, givenGlobal)
	m.by = m.s.GroupByKey()
	m.windows, m.sessions = m.by.WindowedBy(window.Tumbling(ms)), m.by.SessionsBy(window.Session(ms))
	m.wt = m.windows.Reduce(givenWindows, one)
	m.w = m.wt.ToStream()
	m.rows = m.t.GroupBy(givenGroups, func(k, v string) (string, string) { return k, v })
	m.co = m.by.Cogroup(one)
	return m
}

// inits is a processor of both kinds whose Init is the test's.
type inits func(*stream.Scope[string, string])

func (f inits) Init(s *stream.Scope[string, string]) error       { f(s); return nil }
func (inits) Process(*stream.Context[string, string], rec) error { return nil }

type initsValues func(*stream.ValueScope)

func (f initsValues) Init(s *stream.ValueScope) error               { f(s); return nil }
func (initsValues) Process(*stream.ValueContext[string], rec) error { return nil }

func (m made) init(f inits, stores ...state.Handle) {
	m.s.Process(func() stream.Processor[string, string, string, string] { return f }, stores...)
}

func (m made) initValues(f initsValues) {
	m.s.ProcessValues(func() stream.ValueProcessor[string, string, string] { return f })
}

const (
	noProcessor = "there is no processor: the function that makes it is nil, or gives nil"
	noTimer     = "a timer is set with a nil function"
	noOnTimer   = "OnTimer is given a nil store or function"
)

// givenNil are all methods with a function that must be there, or with a stream or table.
var givenNil = []struct {
	name      string
	functions int    // that are nil
	other     bool   // o has a stream or table that is nil, or another Builder's
	text      string // if it is not the usual one
	build     func(m, o made)
}{
	{"Builder.Around", 1, false, "", func(m, _ made) { m.b.Around(nil) }},
	{"Builder.GlobalStore", 1, false, "", func(m, _ made) { m.b.GlobalStore(orders, givenKV, nil) }},
	{"KStream.Filter", 1, false, "", func(m, _ made) { m.s.Filter(nil) }},
	{"KStream.FilterNot", 1, false, "", func(m, _ made) { m.s.FilterNot(nil) }},
	{"KStream.TryFilter", 1, false, "", func(m, _ made) { m.s.TryFilter(nil) }},
	{"KStream.Peek", 1, false, "", func(m, _ made) { m.s.Peek(nil) }},
	{"KStream.TryPeek", 1, false, "", func(m, _ made) { m.s.TryPeek(nil) }},
	{"KStream.Foreach", 1, false, "", func(m, _ made) { m.s.Foreach(nil) }},
	{"KStream.Merge", 0, true, "", func(m, o made) { m.s.Merge(o.s) }},
	{"KStream.GroupBy", 1, false, "", func(m, _ made) { m.s.GroupBy(byKey, nil) }},
	{"Branches.When", 1, false, "", func(m, _ made) { m.s.Split().When(nil) }},
	{"Branches.TryWhen", 1, false, "", func(m, _ made) { m.s.Split().TryWhen(nil) }},
	{"KStream.MapValues", 1, false, "", func(m, _ made) { m.s.MapValues[string](nil) }},
	{"KStream.TryMapValues", 1, false, "", func(m, _ made) { m.s.TryMapValues[string](nil) }},
	{"KStream.FlatMapValues", 1, false, "", func(m, _ made) { m.s.FlatMapValues[string](nil) }},
	{"KStream.TryFlatMapValues", 1, false, "", func(m, _ made) { m.s.TryFlatMapValues[string](nil) }},
	{"KStream.Map", 1, false, "", func(m, _ made) { m.s.Map[string, string](nil) }},
	{"KStream.TryMap", 1, false, "", func(m, _ made) { m.s.TryMap[string, string](nil) }},
	{"KStream.FlatMap", 1, false, "", func(m, _ made) { m.s.FlatMap[string, string](nil) }},
	{"KStream.SelectKey", 1, false, "", func(m, _ made) { m.s.SelectKey[string](nil) }},
	{"KStream.TrySelectKey", 1, false, "", func(m, _ made) { m.s.TrySelectKey[string](nil) }},
	{"KStream.MapAsync", 1, false, "", func(m, _ made) { m.s.MapAsync[string](stream.Async{}, nil) }},
	{"KStream.ToFunc", 1, false, "", func(m, _ made) { m.s.ToFunc(nil) }},
	{"KStream.Process", 1, false, noProcessor, func(m, _ made) { m.s.Process[string, string](nil) }},
	{"KStream.Process", 0, true, "", func(m, o made) { m.init(func(*stream.Scope[string, string]) {}, o.g) }},
	{"KStream.ProcessFunc", 1, false, "", func(m, _ made) { m.s.ProcessFunc[string, string](nil) }},
	{"KStream.ProcessValues", 1, false, noProcessor, func(m, _ made) { m.s.ProcessValues[string](nil) }},
	{"Scope.Every", 1, false, noTimer, func(m, _ made) { m.init(func(s *stream.Scope[string, string]) { s.Every(time.Second, nil) }) }},
	{"Scope.EveryStreamTime", 1, false, noTimer, func(m, _ made) { m.init(func(s *stream.Scope[string, string]) { s.EveryStreamTime(time.Second, nil) }) }},
	{"Scope.OnTimer", 1, false, noOnTimer, func(m, _ made) { m.init(func(s *stream.Scope[string, string]) { s.OnTimer[string](nil, nil) }) }},
	{"ValueScope.Every", 1, false, noTimer, func(m, _ made) { m.initValues(func(s *stream.ValueScope) { s.Every(time.Second, nil) }) }},
	{"ValueScope.EveryStreamTime", 1, false, noTimer, func(m, _ made) { m.initValues(func(s *stream.ValueScope) { s.EveryStreamTime(time.Second, nil) }) }},
	{"KStream.Join", 1, true, "", func(m, o made) { m.s.Join[string, string](o.s, window.Within(ms), near, nil) }},
	{"KStream.LeftJoin", 1, true, "", func(m, o made) { m.s.LeftJoin[string, string](o.s, window.Within(ms), near, nil) }},
	{"KStream.OuterJoin", 1, true, "", func(m, o made) { m.s.OuterJoin[string, string](o.s, window.Within(ms), near, nil) }},
	{"KStream.TryJoin", 1, true, "", func(m, o made) { m.s.TryJoin[string, string](o.s, window.Within(ms), near, nil) }},
	{"KStream.TryLeftJoin", 1, true, "", func(m, o made) { m.s.TryLeftJoin[string, string](o.s, window.Within(ms), near, nil) }},
	{"KStream.TryOuterJoin", 1, true, "", func(m, o made) { m.s.TryOuterJoin[string, string](o.s, window.Within(ms), near, nil) }},
	{"KStream.JoinTable", 1, true, "", func(m, o made) { m.s.JoinTable[string, string](o.t, nil) }},
	{"KStream.LeftJoinTable", 1, true, "", func(m, o made) { m.s.LeftJoinTable[string, string](o.t, nil) }},
	{"KStream.TryJoinTable", 1, true, "", func(m, o made) { m.s.TryJoinTable[string, string](o.t, nil) }},
	{"KStream.TryLeftJoinTable", 1, true, "", func(m, o made) { m.s.TryLeftJoinTable[string, string](o.t, nil) }},
	{"KStream.JoinGlobal", 2, true, "", func(m, o made) { m.s.JoinGlobal[string, string, string](o.g, nil, nil) }},
	{"KStream.LeftJoinGlobal", 2, true, "", func(m, o made) { m.s.LeftJoinGlobal[string, string, string](o.g, nil, nil) }},
	{"KStream.TryJoinGlobal", 2, true, "", func(m, o made) { m.s.TryJoinGlobal[string, string, string](o.g, nil, nil) }},
	{"KStream.TryLeftJoinGlobal", 2, true, "", func(m, o made) { m.s.TryLeftJoinGlobal[string, string, string](o.g, nil, nil) }},
	{"KTable.Filter", 1, false, "", func(m, _ made) { m.t.Filter(nil) }},
	{"KTable.FilterNot", 1, false, "", func(m, _ made) { m.t.FilterNot(nil) }},
	{"KTable.MapValues", 1, false, "", func(m, _ made) { m.t.MapValues[string](nil) }},
	{"KTable.TryMapValues", 1, false, "", func(m, _ made) { m.t.TryMapValues[string](nil) }},
	{"KTable.TransformValues", 1, false, "", func(m, _ made) { m.t.TransformValues[string](nil) }},
	{"KTable.TransformStored", 1, false, noProcessor, func(m, _ made) { m.t.TransformStored[string](nil, givenKV) }},
	{"KTable.GroupBy", 1, false, "", func(m, _ made) { m.t.GroupBy(byKey, nil) }},
	{"KTable.TryGroupBy", 1, false, "", func(m, _ made) { m.t.TryGroupBy(byKey, nil) }},
	{"KTable.Join", 1, true, "", func(m, o made) { m.t.Join[string, string](o.t, nil).Stored(givenKV) }},
	{"KTable.LeftJoin", 1, true, "", func(m, o made) { m.t.LeftJoin[string, string](o.t, nil).MapValues(strings.ToUpper) }},
	{"KTable.OuterJoin", 1, true, "", func(m, o made) { m.s.JoinTable(m.t.OuterJoin[string, string](o.t, nil), one) }},
	{"KTable.JoinForeign", 2, true, "", func(m, o made) { m.t.JoinForeign[string, string, string](o.t, byGood, nil, nil) }},
	{"KTable.LeftJoinForeign", 2, true, "", func(m, o made) { m.t.LeftJoinForeign[string, string, string](o.t, byGood, nil, nil) }},
	{"KGroupedStream.Reduce", 1, false, "", func(m, _ made) { m.by.Reduce(givenKV, nil) }},
	{"KGroupedStream.Aggregate", 1, false, "", func(m, _ made) { m.by.Aggregate(givenKV, nil) }},
	{"KGroupedStream.Fold", 1, false, "", func(m, _ made) { m.by.Fold(givenKV, stream.Fold[string, string, string]{}) }},
	{"KGroupedTable.Reduce", 2, false, "", func(m, _ made) { m.rows.Reduce(givenKV, nil, nil) }},
	{"KGroupedTable.Aggregate", 2, false, "", func(m, _ made) { m.rows.Aggregate(givenKV, nil, nil) }},
	{"KGroupedTable.Fold", 2, false, "", func(m, _ made) { var f stream.Fold[string, string, string]; m.rows.Fold(givenKV, f, f) }},
	{"TimeWindowedKStream.Reduce", 1, false, "", func(m, _ made) { m.windows.Reduce(givenWindow, nil) }},
	{"TimeWindowedKStream.Aggregate", 1, false, "", func(m, _ made) { m.windows.Aggregate(givenWindow, nil) }},
	{"TimeWindowedKStream.Fold", 1, false, "", func(m, _ made) { m.windows.Fold(givenWindow, stream.Fold[string, string, string]{}) }},
	{"SessionWindowedKStream.Reduce", 1, false, "", func(m, _ made) { m.sessions.Reduce(givenSession, nil) }},
	{"SessionWindowedKStream.Aggregate", 2, false, "", func(m, _ made) { m.sessions.Aggregate(givenSession, nil, nil) }},
	{"SessionWindowedKStream.Fold", 2, false, "", func(m, _ made) { m.sessions.Fold(givenSession, stream.Fold[string, string, string]{}, nil) }},
	{"KGroupedStream.Cogroup", 1, false, "", func(m, _ made) { m.by.Cogroup[string](nil).Aggregate(givenKV) }},
	{"KGroupedStream.CogroupFold", 1, false, "", func(m, _ made) { m.by.CogroupFold(stream.Fold[string, string, string]{}).Aggregate(givenKV) }},
	{"CogroupedKStream.And", 1, true, "", func(m, o made) { m.co.And[string](o.by, nil).Aggregate(givenKV) }},
	{"CogroupedKStream.AndFold", 1, true, "", func(m, o made) { m.co.AndFold(o.by, stream.Fold[string, string, string]{}).Aggregate(givenKV) }},
	{"SessionWindowedCogroupedKStream.Aggregate", 1, false, "", func(m, _ made) { m.co.And(m.by, one).SessionsBy(window.Session(ms)).Aggregate(givenSession, nil) }},
	{"WindowedKTable.Filter", 1, false, "", func(m, _ made) { m.wt.Filter(nil) }},
	{"WindowedKTable.FilterNot", 1, false, "", func(m, _ made) { m.wt.FilterNot(nil) }},
	{"WindowedKTable.MapValues", 1, false, "", func(m, _ made) { m.wt.MapValues[string](nil) }},
	{"WindowedKTable.TryMapValues", 1, false, "", func(m, _ made) { m.wt.TryMapValues[string](nil) }},
	{"WindowedKTable.GroupBy", 1, false, "", func(m, _ made) { m.wt.GroupBy(byKey, nil) }},
	{"WindowedKStream.Filter", 1, false, "", func(m, _ made) { m.w.Filter(nil) }},
	{"WindowedKStream.FilterNot", 1, false, "", func(m, _ made) { m.w.FilterNot(nil) }},
	{"WindowedKStream.TryFilter", 1, false, "", func(m, _ made) { m.w.TryFilter(nil) }},
	{"WindowedKStream.Peek", 1, false, "", func(m, _ made) { m.w.Peek(nil) }},
	{"WindowedKStream.Foreach", 1, false, "", func(m, _ made) { m.w.Foreach(nil) }},
	{"WindowedKStream.Merge", 0, true, "", func(m, o made) { m.w.Merge(o.w) }},
	{"WindowedKStream.MapValues", 1, false, "", func(m, _ made) { m.w.MapValues[string](nil) }},
	{"WindowedKStream.TryMapValues", 1, false, "", func(m, _ made) { m.w.TryMapValues[string](nil) }},
	{"WindowedKStream.Map", 1, false, "", func(m, _ made) { m.w.Map[string, string](nil) }},
	{"WindowedKStream.SelectKey", 1, false, "", func(m, _ made) { m.w.SelectKey[string](nil) }},
	{"WindowedKStream.JoinTable", 1, true, "", func(m, o made) { m.w.JoinTable[string, string](o.t, nil) }},
	{"WindowedKStream.LeftJoinTable", 1, true, "", func(m, o made) { m.w.LeftJoinTable[string, string](o.t, nil) }},
	{"WindowedKStream.JoinGlobal", 1, true, "", func(m, o made) { m.w.JoinGlobal[string, string](o.g, nil) }},
	{"WindowedKStream.LeftJoinGlobal", 1, true, "", func(m, o made) { m.w.LeftJoinGlobal[string, string](o.g, nil) }},
}

func TestNothingIsGiven(t *testing.T) {
	for _, test := range givenNil {
		others := map[string]made{"nil": {}}
		if test.other {
			others["of another Builder"] = makeAll()
		}
		_, method, _ := strings.Cut(test.name, ".")
		want := slices.Repeat([]string{method + " is given a nil function"}, test.functions)
		if test.text != "" {
			want = []string{test.text}
		}
		if test.other {
			want = append(want, method+" is given nil, or what another Builder has made")
		}
		file, line := runtime.FuncForPC(reflect.ValueOf(test.build).Pointer()).FileLine(reflect.ValueOf(test.build).Pointer())
		for which, o := range others {
			t.Run(test.name+" "+which, func(t *testing.T) {
				m := makeAll()
				test.build(m, o)
				_, err := m.b.Build()
				var all topology.Mistakes
				errors.As(err, &all)
				var got []string
				for _, one := range all {
					got = append(got, one.Text)
					if kind := topology.ErrArgument; !errors.Is(one, kind) && one.Text != noProcessor {
						t.Errorf("not %v: %v", kind, one)
					}
					if at := file + ":" + strconv.Itoa(line); one.At != at && test.text != noTimer && test.text != noOnTimer && test.name != "KStream.Process" {
						t.Errorf("%s instead of %s", one.At, at)
					}
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Errorf("got  %q\nwant %q", got, want)
				}
			})
		}
	}
}

// Without a mistake there is none.
func TestAllIsGiven(t *testing.T) {
	if _, err := makeAll().b.Build(); err != nil {
		t.Error(err)
	}
}

// In these nil stands for the default, or there is no Builder that could be told.
var mayBeNil = []string{
	"Topic.PartitionBy", "Topic.PartitionsBy", "Topic.Timestamps", "TopicPattern.Timestamps",
	"Repartition.PartitionBy", "Repartition.PartitionsBy", "ForeignKey.PartitionBy", "ForeignKey.PartitionForeignBy",
	".Flatten", ".FlattenTable", ".WindowTable",
}

func TestNilStandsForTheDefault(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		s := b.Stream(text.PartitionBy(nil).PartitionsBy(nil).Timestamps(nil))
		s.Repartition(byKey.PartitionBy(nil).PartitionsBy(nil)).To(out.PartitionBy(nil).PartitionsBy(nil))
		b.StreamPattern(stream.NewTopicPattern("x-.*", serde.String, serde.String).Timestamps(nil))
		b.Table(orders, orderKV).JoinForeign(b.Table(goods, goodKV), byGood.PartitionBy(nil).PartitionForeignBy(nil), goodOf, one).ToStream().To(out)
	})
	streamtest.In(d, text).Send("a", "b", at(7))
	streamtest.In(d, goods).Send("x", "tea", at(8))
	streamtest.In(d, orders).Send("o", "x:1", at(9))
	if got, want := show(streamtest.Out(d, out).All()), "a=b@7, o=x:1@9"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// takers are the exported functions and methods of a package with a parameter that is a function, a struct of functions, or
// something of the language with a Builder of its own.
func takers(files []*ast.File) map[string]bool {
	functions, made := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		for _, d := range file.Decls {
			d, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range d.Specs {
				s, ok := s.(*ast.TypeSpec)
				if !ok || !s.Name.IsExported() {
					continue
				}
				fields, ok := s.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range fields.Fields.List {
					if _, ok := f.Type.(*ast.FuncType); ok && f.Names[0].IsExported() {
						functions[s.Name.Name] = true
					}
					name := typeName(f.Type)
					if name == "rows" || name == "Builder" || name == "CogroupedKStream" {
						made[s.Name.Name] = true
					}
				}
			}
		}
	}
	names := map[string]bool{}
	for _, file := range files {
		for _, d := range file.Decls {
			d, ok := d.(*ast.FuncDecl)
			if !ok || !d.Name.IsExported() {
				continue
			}
			recv := ""
			if d.Recv != nil {
				recv = typeName(d.Recv.List[0].Type)
			}
			if recv != "" && !ast.IsExported(recv) {
				continue
			}
			for _, p := range d.Type.Params.List {
				_, is := p.Type.(*ast.FuncType)
				_, pointer := p.Type.(*ast.StarExpr)
				if name := typeName(p.Type); is || functions[name] || pointer && made[name] {
					names[recv+"."+d.Name.Name] = true
				}
			}
		}
	}
	return names
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// An operator that is new is in the list above.
func TestAllOperatorsAreTriedWithNil(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	parse := func(path, source string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	for _, path := range paths {
		if source, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		} else if !strings.HasSuffix(path, "_test.go") {
			parse(path, string(source))
		}
	}
	tried := map[string]bool{}
	for _, test := range givenNil {
		tried[test.name] = true
	}
	for _, name := range mayBeNil {
		tried[name] = true
	}
	takes := takers(files)
	for _, name := range slices.Sorted(maps.Keys(takes)) {
		if !tried[name] {
			t.Errorf("%s is not tried with nil", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tried)) {
		if !takes[name] {
			t.Errorf("%s takes neither functions nor streams", name)
		}
	}
	parse("new.go", `package stream
		func (s *KStream[K, V]) New(f func(K) bool) {}
		func (s *KStream[K, V]) NewFold[A any](n int, f Fold[K, V, A]) {}
		func (s *KTable[K, V]) NewJoin[V2 any](o *KTable[K, V2]) {}
		func (s *KTable[K, V]) Other(n *int, h state.Handle) {}
		func (t rows[K, V]) Within(f func()) {}`)
	now := takers(files)
	maps.DeleteFunc(now, func(name string, _ bool) bool { return tried[name] })
	if got := strings.Join(slices.Sorted(maps.Keys(now)), " "); got != "KStream.New KStream.NewFold KTable.NewJoin" {
		t.Errorf("new operators that are found: %s", got)
	}
}
