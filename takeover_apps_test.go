package moldau_test

import (
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

// The applications of scripts/takeover/Takeover.java, step by step, over topics <name>-a and <name>-b.

// takeover is a topology, and what comes out of it.
type takeover struct {
	name string
	// Outputs are topics without the application's name. Those in order have a record for each update, in the order of the one topic they
	// come from; of the others, which come by way of a repartition topic or of a foreign key, only the last of each key is the same.
	ordered, final []string
	build          func(b *stream.Builder, t takeoverTopics)
	// Some of those in order, which Kafka Streams gives in another order, or not at all, once it has been started again, by itself alone as
	// well: it restores a suppression buffer with the time at which a key was first held back, ever, and forgets how far a buffer of
	// records that wait has come. They are compared where Moldau has the last word.
	restarted []string
	// counted are stores whose changelog has a number in its keys that is counted anew after a start, and versioned ones, of whose
	// records Kafka Streams keeps other ones (docs/CONFORMANCE.md).
	counted []string
	// compacted: the second topic keeps the last record of each key.
	compacted bool
}

// takeoverTopics are the topics of one application.
type takeoverTopics struct {
	app, a, b string
	slow      time.Duration // that a record takes to read
}

// slowText is a text that takes so long to read.
type slowText time.Duration

func (slowText) Encode(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }

func (d slowText) Decode(b []byte) (string, error) {
	time.Sleep(time.Duration(d))
	return string(b), nil
}

func (t takeoverTopics) texts(name string) stream.Topic[string, string] {
	return stream.NewTopic(t.app+"-"+name, serde.String, serde.String)
}

func (t takeoverTopics) first() stream.Topic[string, string] {
	return stream.NewTopic(t.a, serde.String, slowText(t.slow))
}

func (t takeoverTopics) second() stream.Topic[string, string] {
	return stream.NewTopic(t.b, serde.String, slowText(t.slow))
}

func (t takeoverTopics) deletable(name string) stream.Topic[string, *string] {
	return stream.NewTopic(t.app+"-"+name, serde.String, serde.Null(serde.String))
}

func (t takeoverTopics) numbers(name string) stream.Topic[string, int64] {
	return stream.NewTopic(t.app+"-"+name, serde.String, serde.Int64)
}

func (t takeoverTopics) windows(name string, size time.Duration) stream.Topic[window.Key[string], int64] {
	return stream.NewWindowedTopic(t.app+"-"+name, serde.String, serde.Int64, size)
}

func textStore(name string) state.KeyValue[string, string] {
	return state.NewKeyValue(name, serde.String, serde.String).EveryUpdate()
}

func deletableStore(name string) state.KeyValue[string, *string] {
	return state.NewKeyValue(name, serde.String, serde.Null(serde.String)).EveryUpdate()
}

func numberStore(name string) state.KeyValue[string, int64] {
	return state.NewKeyValue(name, serde.String, serde.Int64).EveryUpdate()
}

func numberWindows(name string) state.Window[string, int64] {
	return state.NewWindow(name, serde.String, serde.Int64).EveryUpdate().ExpireFirst().ExpireBySegment()
}

func firstLetter(_, v string) string { return v[:1] }

func letterOf(k, v string) (string, bool) { return v[:1], true }

// addText adds to a text of at most 20 characters; what begins with an x takes all of it away.
func addText(all *string, v string) *string {
	if v[0] == 'x' {
		return nil
	}
	if all != nil {
		v = *all + v
	}
	return new(v[max(0, len(v)-20):])
}

// fromEmpty is addText that begins with "", as in Java.
var fromEmpty = stream.Fold[string, string, *string]{
	Init: func() *string { return new("") },
	Add: func(all *string, r stream.Record[string, string]) (*string, bool, error) {
		all = addText(all, r.Value)
		return all, all != nil, nil
	},
}

func orNull(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// orEmpty: what is folded begins with nil here and with "" there.
func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func paired(l, r string) string { return l + "+" + r }

func pairedLeft(l string, r *string) string { return paired(l, orNull(r)) }

func pairedEither(l, r *string) string { return paired(orNull(l), orNull(r)) }

var takeovers = []takeover{
	{name: "keyvalue", ordered: []string{"texts"}, final: []string{"letters", "owners"}, build: func(b *stream.Builder, t takeoverTopics) {
		in := b.Stream(t.first())
		in.GroupByKey().Aggregate(deletableStore("texts"), addText).ToStream().To(t.deletable("texts"))
		in.GroupBy(stream.NewRepartition("by-letter", serde.String, serde.String), firstLetter).
			Count(numberStore("letters")).ToStream().To(t.numbers("letters"))
		b.Table(t.second(), textStore("rows")).
			GroupBy(stream.NewRepartition("by-owner", serde.String, serde.String), func(_, v string) (string, string) { return v[:1], v }).
			Aggregate(numberStore("owners"), func(n int64, v string) int64 { return n + int64(len(v)) }, func(n int64, v string) int64 { return n - int64(len(v)) }).
			ToStream().To(t.numbers("owners"))
	}},
	{name: "windows", ordered: []string{"tumbling", "hopping", "sliding", "closed"}, build: func(b *stream.Builder, t takeoverTopics) {
		in := b.Stream(t.first()).GroupByKey()
		tumbling := window.Tumbling(10 * time.Second).Grace(5 * time.Second)
		in.WindowedBy(tumbling).Count(numberWindows("tumbling")).ToStream().To(t.windows("tumbling", 10*time.Second))
		in.WindowedBy(window.Hopping(10*time.Second, 4*time.Second).Grace(5*time.Second)).
			Aggregate(state.NewWindow("hopping", serde.String, serde.Null(serde.String)).EveryUpdate().ExpireFirst().ExpireBySegment(), addText).
			ToStream().To(stream.NewWindowedTopic(t.app+"-hopping", serde.String, serde.Null(serde.String), 10*time.Second))
		in.SlidingBy(window.Sliding(5 * time.Second).Grace(5 * time.Second)).Count(numberWindows("sliding")).ToStream().To(t.windows("sliding", 5*time.Second))
		in.WindowedBy(tumbling).OnClose().Count(numberWindows("closed")).ToStream().To(t.windows("closed", 10*time.Second))
	}},
	{name: "sessions", ordered: []string{"sessions", "ended"}, build: func(b *stream.Builder, t takeoverTopics) {
		in := b.Stream(t.first()).GroupByKey()
		gap := window.Session(3 * time.Second).Grace(5 * time.Second)
		in.SessionsBy(gap).
			Aggregate(state.NewSession("sessions", serde.String, serde.Null(serde.String)).EveryUpdate().ExpireFirst().ExpireBySegment(), addText,
				func(l, r *string) *string { return new(paired(orEmpty(l), *r)) }).
			ToStream().To(stream.NewSessionTopic(t.app+"-sessions", serde.String, serde.Null(serde.String)))
		in.SessionsBy(gap).OnClose().
			Count(state.NewSession("ended", serde.String, serde.Int64).EveryUpdate().ExpireFirst().ExpireBySegment()).
			ToStream().To(stream.NewSessionTopic(t.app+"-ended", serde.String, serde.Int64))
	}},
	{name: "foreign", final: []string{"enriched", "perhaps"}, build: func(b *stream.Builder, t takeoverTopics) {
		orders, customers := b.Table(t.first(), textStore("orders")), b.Table(t.second(), textStore("customers"))
		foreign := func(name string) stream.ForeignKey[string, string, string, string] {
			return stream.NewForeignKey(name, serde.String, serde.String, serde.String, serde.String)
		}
		orders.JoinForeign(customers, foreign("customer"), letterOf, paired).Stored(textStore("enriched")).ToStream().To(t.texts("enriched"))
		orders.LeftJoinForeign(customers, foreign("perhaps"), letterOf, pairedLeft).ToStream().To(t.texts("perhaps"))
	}},
	{name: "suppress", ordered: []string{"final", "held"}, restarted: []string{"held"}, build: func(b *stream.Builder, t takeoverTopics) {
		in := b.Stream(t.first()).GroupByKey()
		in.WindowedBy(window.Tumbling(10 * time.Second).Grace(5 * time.Second)).Count(numberWindows("counts")).
			UntilClosed(state.NewWindowBuffer("final-store", serde.String, serde.Int64)).
			ToStream().To(t.windows("final", 10*time.Second))
		// Fold, since the buffer's changelog says what an aggregate began with.
		in.Fold(deletableStore("texts"), fromEmpty).
			Suppress(state.NewSuppressBuffer("held-store", serde.String, serde.Null(serde.String)), stream.UntilTime(7*time.Second)).
			ToStream().To(t.deletable("held"))
	}},
	{name: "joins", ordered: []string{"pairs", "left", "either", "tables"}, counted: []string{"join-store"}, build: func(b *stream.Builder, t takeoverTopics) {
		left, right := b.Stream(t.first()), b.Stream(t.second())
		near := window.Within(5 * time.Second).Grace(5 * time.Second)
		buffer := func(name string) state.JoinBuffer[string, string, string] {
			return state.NewJoinBuffer(name, serde.String, serde.String, serde.String).ExpireBySegment()
		}
		left.Join(right, near, buffer("pairs"), paired).To(t.texts("pairs"))
		left.LeftJoin(right, near, buffer("left"), pairedLeft).To(t.texts("left"))
		left.OuterJoin(right, near, buffer("either"), pairedEither).To(t.texts("either"))
		left.ToTable(textStore("one")).OuterJoin(right.ToTable(textStore("other")), pairedEither).ToStream().To(t.texts("tables"))
	}},
	{name: "versioned", ordered: []string{"then"}, restarted: []string{"then"}, counted: []string{"history", "waiting-Buffer"}, build: func(b *stream.Builder, t takeoverTopics) {
		rows := b.Table(t.second(), state.NewVersioned("history", serde.String, serde.String, time.Minute))
		b.Stream(t.first()).
			LeftJoinTable(rows, pairedLeft, state.NewBuffer("waiting-Buffer", serde.String, serde.String).Grace(10*time.Second)).
			To(t.texts("then"))
	}},
	// Nobody has named anything in Java, so names are those that it has generated.
	{name: "positional", ordered: []string{"held", "pairs"}, restarted: []string{"held"}, final: []string{"letters", "enriched"}, counted: []string{"-store"}, build: func(b *stream.Builder, t takeoverTopics) {
		in := b.Stream(t.first())
		in.GroupBy(stream.NewRepartition("KSTREAM-AGGREGATE-STATE-STORE-0000000003", serde.String, serde.String), firstLetter).
			Count(numberStore("KSTREAM-AGGREGATE-STATE-STORE-0000000003")).ToStream().To(t.numbers("letters"))
		in.GroupByKey().Count(numberStore("KSTREAM-AGGREGATE-STATE-STORE-0000000011")).
			Suppress(state.NewSuppressBuffer("KTABLE-SUPPRESS-STATE-STORE-0000000014", serde.String, serde.Int64), stream.UntilTime(7*time.Second)).
			ToStream().To(t.numbers("held"))
		in.OuterJoin(in.MapValues(func(v string) string { return v + v }), window.Within(5*time.Second).Grace(5*time.Second),
			state.NewJoinBuffer("join", serde.String, serde.String, serde.String).
				ExpireBySegment().Named("KSTREAM-OUTERTHIS-0000000020-store", "KSTREAM-OUTEROTHER-0000000021-store", "KSTREAM-OUTERSHARED-0000000020-store"), pairedEither).
			To(t.texts("pairs"))
		in.ToTable(textStore("KSTREAM-TOTABLE-STATE-STORE-0000000025")).
			LeftJoinForeign(b.Table(t.second(), textStore("positional-b-STATE-STORE-0000000026")),
				stream.NewForeignKey("letter", serde.String, serde.String, serde.String, serde.String).
					Named("KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-0000000029-topic", "KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-0000000037-topic",
						"KTABLE-FK-JOIN-SUBSCRIPTION-STATE-STORE-0000000033"), letterOf, pairedLeft).
			ToStream().To(t.texts("enriched"))
	}},
	// The second topic is the changelog of its table.
	{name: "reuse", ordered: []string{"with", "lengths"}, final: []string{"owners"}, compacted: true, build: func(b *stream.Builder, t takeoverTopics) {
		rows := b.Table(t.second(), textStore("rows").ReuseSourceTopic())
		b.Stream(t.first()).LeftJoinTable(rows, pairedLeft).To(t.texts("with"))
		rows.MapValues(func(v string) int64 { return int64(len(v)) }).ToStream().To(t.numbers("lengths"))
		rows.GroupBy(stream.NewRepartition("by-owner", serde.String, serde.String), func(_, v string) (string, string) { return v[:1], v }).
			Aggregate(numberStore("owners"), func(n int64, v string) int64 { return n + int64(len(v)) }, func(n int64, v string) int64 { return n - int64(len(v)) }).
			ToStream().To(t.numbers("owners"))
	}},
}
