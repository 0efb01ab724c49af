// Package wrong holds what must not build. Each line says what the compiler must answer there.
package wrong

import (
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

var (
	words   = stream.NewTopic("words", serde.String, serde.String)
	lengths = stream.NewTopic("lengths", serde.String, serde.Int64)
	byWord  = stream.NewRepartition("by-word", serde.String, serde.String)
	counts  = state.NewKeyValue("counts", serde.String, serde.Int64)
	texts   = state.NewKeyValue("texts", serde.String, serde.String)
	panes   = state.NewWindow("panes", serde.String, serde.Int64)
	byText  = stream.NewForeignKey("by-text", serde.String, serde.String, serde.String, serde.Int64)
	hours   = stream.NewWindowedTopic("hours", serde.String, serde.Int64, time.Hour)
)

func length(s string) int64 { return int64(len(s)) }

func build(b *stream.Builder) {
	s := b.Stream(words)
	s.To(lengths)                                                                                  // want "cannot use lengths .* as stream.Topic\[string, string\]"
	s.MapValues(length).To(words)                                                                  // want "cannot use words .* as stream.Topic\[string, int64\]"
	s.Filter(func(_ string, n int64) bool { return n > 0 })                                        // want "cannot use func.* as func\(string, string\) bool"
	s.Merge(b.Stream(lengths))                                                                     // want "cannot use b.Stream\(lengths\) .*KStream\[string, int64\]"
	s.GroupByKey().Count(texts)                                                                    // want "cannot use texts .* as state.Table\[string, int64\]"
	s.GroupByKey().Count(panes)                                                                    // want "cannot use panes .* as state.Table\[string, int64\]"
	s.GroupByKey().Reduce(counts, nil)                                                             // want "cannot use counts .* as state.Table\[string, string\]"
	s.GroupBy(byWord, length)                                                                      // want "type func\(s string\) int64 of length does not match"
	s.GroupByKey().WindowedBy(window.Session(1))                                                   // want "cannot use window.Session\(1\) .* as window.TimeWindows"
	s.GroupByKey().WindowedBy(window.Tumbling(1)).Count(counts)                                    // want "cannot use counts .* as state.Window\[string, int64\]"
	s.GroupByKey().Count(counts).ToStream().To(hours)                                              // want "cannot use hours .* as stream.Topic\[string, int64\]"
	s.JoinTable(b.Table(lengths, counts), func(v string, n string) string { return v + n })        // want "of func.* does not match"
	b.Table(words, texts).JoinForeign(b.Table(words, texts), byText, nil, nil)                     // want "of byText does not match"
	b.Table(words, counts)                                                                         // want "type state.KeyValue\[string, int64\] of counts does not match"
	b.Stream(byWord)                                                                               // want "type stream.Repartition\[string, string\] of byWord does not match"
	s.GroupByKey().SlidingBy(window.Tumbling(1))                                                   // want "cannot use window.Tumbling\(1\) .* as window.SlidingWindows"
	s.GroupByKey().Cogroup(func(n int64, v int64) int64 { return n + v })                          // want "of func.* does not match"
	s.GroupByKey().Aggregate(texts, func(n int64, v string) int64 { return n })                    // want "of func.* does not match"
	s.Repartition(stream.NewRepartition("n", serde.String, serde.Int64))                           // want "cannot use stream.NewRepartition.* as stream.Repartition\[string, string\]"
	s.ToTable(counts)                                                                              // want "cannot use counts .* as state.Table\[string, string\]"
	s.ToFunc(func(r stream.Record[string, string]) stream.Topic[string, int64] { return lengths }) // want "cannot use func.* as func\(stream.Record\[string, string\]\) stream.Topic\[string, string\]"
	s.Split().When(func(string, int64) bool { return true })                                       // want "cannot use func.* as func\(string, string\) bool"
	s.TryFilter(func(stream.Record[string, string]) bool { return true })                          // want "cannot use func.* \(bool, error\)"
	s.ProcessValues(func() stream.Processor[string, string, string, string] { return nil })        // want "of func.* does not match"
	b.Table(words, texts).Filter(func(k string, v int64) bool { return true })                     // want "cannot use func.* as func\(string, string\) bool"
	b.Table(words, texts).Join(b.Table(lengths, counts), func(a, b string) string { return a })    // want "of func.* does not match"
	b.Table(words, texts).Stored(counts)                                                           // want "cannot use counts .* as state.Table\[string, string\]"
	b.GlobalTable(lengths, panes)                                                                  // want "of panes does not match"
	b.Table(words, texts).GroupByKey()                                                             // want "has no field or method GroupByKey"
	s.GroupByKey().WindowedBy(window.Tumbling(1)).Count(panes).ToStream().To(lengths)              // want "cannot use lengths .* as stream.Topic\[window.Key\[string\], int64\]"
}
