package stream

import (
	"bytes"
	"strings"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/topology"
)

// ForeignKey is a handle of what a foreign-key join keeps: a topic by which rows of the left table subscribe to rows of the
// right one, <app>-<name>-subscription-registration-topic, a store of the subscriptions, <name>-subscription-store, and
// a topic of the answers, <app>-<name>-subscription-response-topic. All are written as Kafka Streams writes them. The handle is
// read-only; its settings return copies.
type ForeignKey[K, V, FK, FV any] struct {
	root     *topicRoot
	key      serde.Serde[K]
	value    serde.Serde[V]
	foreign  serde.Serde[FK]
	found    serde.Serde[FV]
	combined combinedSerde[FK, K]
	store    *flow.StoreSpec
	// Names of the topics without what they end with.
	registration, response string
	by                     func(k K, n int32) int32
	foreignBy              func(fk FK, n int32) int32
	always                 bool
}

// NewForeignKey declares what a foreign-key join keeps: of a table of [K, V] with one of [FK, FV]. Equal values of the left table must
// give equal bytes, since an answer is known by a hash of the row that asked. A value of the right table that has no
// bytes, such as an empty string, counts as none.
//
//go:noinline
func NewForeignKey[K, V, FK, FV any](name string, key serde.Serde[K], value serde.Serde[V], foreign serde.Serde[FK], found serde.Serde[FV]) ForeignKey[K, V, FK, FV] {
	f := ForeignKey[K, V, FK, FV]{root: &topicRoot{where()}, key: key, value: value,
		foreign: foreign, found: found, combined: combinedSerde[FK, K]{foreign, key},
		registration: name + "-subscription-registration", response: name + "-subscription-response"}
	f.store = &flow.StoreSpec{Name: name + "-subscription-store", Kind: flow.KeyValue, Ordered: true, At: f.root.at}
	f.store.Root = f.store
	f.store.New = func(env flow.StoreEnv) (flow.Store, error) {
		return table.NewKV(env, f.combined, subscriptionSerde[K]{key})
	}
	return f
}

// Named gives the topics and the store other names than those made of the handle's: of the subscriptions, of the answers, and of the
// store. It is for taking over from a Kafka Streams application that has not named them; what is said are the names of its
// description, such as KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-0000000029-topic: the application's name comes before them, and topics end
// with -topic whether that is said or not.
func (f ForeignKey[K, V, FK, FV]) Named(registration, response, store string) ForeignKey[K, V, FK, FV] {
	f.registration, f.response = strings.TrimSuffix(registration, "-topic"), strings.TrimSuffix(response, "-topic")
	spec := *f.store
	spec.Name = store
	f.store = &spec
	return f
}

// PartitionBy is where the left table has the row of a key, 0 to n-1. Default, or nil: where the row came from. (TableJoined.withPartitioner)
func (f ForeignKey[K, V, FK, FV]) PartitionBy(by func(k K, n int32) int32) ForeignKey[K, V, FK, FV] {
	f.by = by
	return f
}

// PartitionForeignBy is where the right table has the row of a key, 0 to n-1; for a table whose topic is not written by Kafka's default
// partitioner. Nil: that partitioner. (TableJoined.withOtherPartitioner)
func (f ForeignKey[K, V, FK, FV]) PartitionForeignBy(by func(fk FK, n int32) int32) ForeignKey[K, V, FK, FV] {
	f.foreignBy = by
	return f
}

// AlwaysAnswer has every update of a left row answered, by an inner join as well, for which there may be no right row. Default:
// only where Kafka Streams does it. Its inner join can keep a row that ought to have gone: when the left row changes while the
// answer that takes the row away (because the right row, the left one or its foreign key has gone) is on its way.
// It costs a record to and fro for each row without a match, and deletions of rows that were never there.
func (f ForeignKey[K, V, FK, FV]) AlwaysAnswer() ForeignKey[K, V, FK, FV] {
	f.always = true
	return f
}

func (f ForeignKey[K, V, FK, FV]) topic(name string) topology.Topic {
	return topology.Topic{Root: f.root, Name: name, Kind: topology.Repartition, Suffix: "topic", At: f.root.at}
}

// JoinForeign joins rows with those of another table whose keys are in them: fk finds the foreign key in a row; without one
// (ok=false, or nil where nil is a value) nothing comes out. It follows updates of either table; many rows may have the same foreign
// key, and the tables need not have the same number of partitions.
//
// An update of a left row travels to the task of its foreign key and back; an answer to a row that has changed meanwhile is
// dropped. A row has the later time of both after an update of the left, that of the right after an update of the
// right. The result may delete rows it never had.
//
// Nobody keeps the result: give it a store with Stored if it is to be looked up.
func (t *KTable[K, V]) JoinForeign[FK, FV, R any](o *KTable[FK, FV], by ForeignKey[K, V, FK, FV], fk func(K, V) (FK, bool), j func(V, FV) R) *KTable[K, R] {
	t.b.given(fk != nil, j != nil)
	return &KTable[K, R]{joinForeign(t.rows, o, by, fk, foreignJoin[V, FV, R]{"joinForeign", false,
		func(v V, fv *FV) R { return j(v, *fv) }})}
}

// LeftJoinForeign is JoinForeign for all rows of t; where the other table has none, or there is no foreign key, its value is nil.
func (t *KTable[K, V]) LeftJoinForeign[FK, FV, R any](o *KTable[FK, FV], by ForeignKey[K, V, FK, FV], fk func(K, V) (FK, bool), j func(V, *FV) R) *KTable[K, R] {
	t.b.given(fk != nil, j != nil)
	return &KTable[K, R]{joinForeign(t.rows, o, by, fk, foreignJoin[V, FV, R]{"leftJoinForeign", true, j})}
}

// foreignJoin is which rows are joined, and how.
type foreignJoin[V, FV, R any] struct {
	kind string
	left bool // rows without a right one as well
	join func(V, *FV) R
}

// Reasons for dropping a record, as metrics name them.
const (
	nullForeignKey = "null-foreign-key"
	staleResponse  = "stale-response"
)

// joinForeign has a node that subscribes with updates of the left table, one that keeps subscriptions and answers them, one that
// answers again when the right table changes, and one that makes rows of the answers.
func joinForeign[K, V, FK, FV, R any](t rows[K, V], with *KTable[FK, FV], by ForeignKey[K, V, FK, FV], fk func(K, V) (FK, bool), j foreignJoin[V, FV, R]) rows[K, R] {
	b, at := t.b, where()
	d := rows[K, R]{b: b, n: t.n, wantOld: func() bool { return false }}
	if by.root == nil {
		b.topic(at, "foreign key", nil, nil)
	}
	if !b.mine(with != nil && with.b == b) || by.root == nil {
		return d
	}
	o := with.rows
	t.mustView(at)
	o.mustView(at)
	t.wantOld()
	o.wantOld() // so that it says nothing of rows it never had
	registration := b.topic(at, "foreign key", by.root, func() topology.Topic { return by.topic(by.registration) }, by.key, by.value, by.foreign, by.found)
	responses := b.graph.Topic(by.topic(by.response))

	send := &topology.Node{Kind: j.kind, Parents: []*topology.Node{t.n}, Sinks: []*topology.Topic{registration}, At: at}
	add(b, send, subscribing(send, registration, by, fk, j.left || by.always))

	asked := &topology.Node{Kind: "source", Source: registration, At: at}
	add(b, asked, func(_ flow.Env, down fn[FK, subscription[K]]) (fn[FK, subscription[K]], error) { return down, nil })
	asked.Feed = feed(asked.ID, by.foreign, subscriptionSerde[K]{by.key})

	answer := &topology.Node{Kind: "answer", Parents: []*topology.Node{asked}, With: []*topology.Node{o.n}, Sinks: []*topology.Topic{responses}, Keyed: true, At: at}
	store := b.graph.Own(by.store, at, answer)
	answer.Stores = append(answer.Stores, o.stores...)
	add(b, answer, answering(answer, responses, by, o.view))

	again := &topology.Node{Kind: "answerAgain", Parents: []*topology.Node{o.n}, Sinks: []*topology.Topic{responses}, Stores: []*topology.Store{store}, ReadsOnly: true, At: at}
	add(b, again, answeringAgain(again, responses, by))

	told := &topology.Node{Kind: "source", Source: responses, At: at}
	add(b, told, func(_ flow.Env, down fn[K, response[FV]]) (fn[K, response[FV]], error) { return down, nil })
	told.Feed = feed(told.ID, by.key, responseSerde[FV]{by.found})

	d.n = &topology.Node{Kind: j.kind, Parents: []*topology.Node{told}, With: []*topology.Node{t.n}, Stores: t.stores, ReadsOnly: true, Keyed: true, At: at}
	add(b, d.n, resolving(d.n, by.value, t.view, j))
	return d
}

// subscribing writes subscriptions for updates of the left table; always: with an answer to each.
func subscribing[K, V, FK, FV any](n *topology.Node, registration *topology.Topic, by ForeignKey[K, V, FK, FV], fk func(K, V) (FK, bool), always bool) func(flow.Env, fn[FK, subscription[K]]) (tfn[K, V], error) {
	null := nullness[FK]()
	of := func(k K, v V, live bool) (f FK, ok bool) {
		if live {
			f, ok = fk(k, v)
		}
		return f, ok && !null.of(f)
	}
	anywhere := writer[FK, subscription[K]]{key: by.foreign, value: subscriptionSerde[K]{by.key}}
	placed := anywhere
	if by.foreignBy != nil {
		placed.by = func(f FK, _ subscription[K], n int32) int32 { return by.foreignBy(f, n) }
	}
	return func(env flow.Env, _ fn[FK, subscription[K]]) (tfn[K, V], error) {
		w, to := placed.open(env, n.ID), env.Topic(registration.Logical())
		nobody := anywhere.open(env, n.ID) // nobody keeps a subscription to null, so it may lie in any partition
		var old, latest, value []byte
		return func(c *flow.Ctx, k K, ch change[V]) {
			if ch.Stale {
				env.Dropped(n.ID, outOfOrder)
				return
			}
			c.Node = n.ID
			from, was := of(k, ch.Old, ch.WasLive)
			into, is := of(k, ch.New, ch.Live)
			if !was && !is && !always {
				if ch.Live {
					env.Dropped(n.ID, nullForeignKey)
				}
				return
			}
			if !ch.Live && !ch.WasLive {
				return
			}
			var err error
			sub := subscription[K]{live: ch.Live, key: k, partition: env.Partition()}
			if ch.Live {
				if value, err = by.value.Encode(value[:0], ch.New); err != nil {
					c.Fail(n.ID, err)
					return
				}
				sub.hash = murmur3(value, digestSeed)
			}
			moved := was && !is
			if was && is {
				if old, err = by.foreign.Encode(old[:0], from); err == nil {
					latest, err = by.foreign.Encode(latest[:0], into)
				}
				if err != nil {
					c.Fail(n.ID, err)
					return
				}
				moved = !bytes.Equal(old, latest)
			}
			keyNull, wasNull := c.KeyNull, c.Null
			c.KeyNull, c.Null = false, false
			tell := func(f FK, order instruction) {
				if sub.order = order; c.Err == nil {
					w.write(c, to, f, sub)
				}
			}
			switch {
			case always:
				if moved {
					tell(from, unsubscribe)
				}
				if is {
					tell(into, subscribeAndTell)
				} else if sub.order = subscribeAndTell; c.Err == nil {
					c.KeyNull = true
					nobody.write(c, to, into, sub)
				}
			case !is:
				if ch.Live {
					env.Dropped(n.ID, nullForeignKey)
				}
				tell(from, unsubscribeAndTell)
			case moved:
				tell(from, unsubscribe)
				tell(into, subscribeAndTell)
			default:
				tell(into, subscribeIfThereIs)
			}
			c.KeyNull, c.Null = keyNull, wasNull
		}, nil
	}
}

// responder writes responses to where the left row is.
func responder[K, V, FK, FV any](env flow.Env, n *topology.Node, responses *topology.Topic, by ForeignKey[K, V, FK, FV]) func(*flow.Ctx, subscription[K], FV, bool) {
	to := env.Topic(responses.Logical())
	out := writer[K, response[FV]]{key: by.key, value: responseSerde[FV]{by.found}}
	byKey := out.open(env, n.ID) // as Kafka's default partitioner would: the subscription is of a version that does not say
	var partition int32
	out.by = func(k K, _ response[FV], n int32) int32 {
		if by.by != nil {
			return by.by(k, n)
		}
		return partition
	}
	placed := out.open(env, n.ID)
	return func(c *flow.Ctx, sub subscription[K], fv FV, found bool) {
		w := placed
		if partition = sub.partition; partition < 0 && by.by == nil {
			w = byKey
		}
		keyNull, wasNull := c.KeyNull, c.Null
		c.KeyNull, c.Null = false, false
		w.write(c, to, sub.key, response[FV]{hash: sub.hash, live: sub.live, value: fv, found: found})
		c.KeyNull, c.Null = keyNull, wasNull
	}
}

type subscriptions[FK, K any] = table.KV[combinedKey[FK, K], subscription[K]]

// answering keeps subscriptions and answers them.
func answering[K, V, FK, FV any](n *topology.Node, responses *topology.Topic, by ForeignKey[K, V, FK, FV], view func(flow.Env, bool) getter[FK, FV]) func(flow.Env, fn[K, response[FV]]) (fn[FK, subscription[K]], error) {
	return func(env flow.Env, _ fn[K, response[FV]]) (fn[FK, subscription[K]], error) {
		kept, get, respond := env.Store(by.store.Name).(*subscriptions[FK, K]), view(env, false), responder(env, n, responses, by)
		return func(c *flow.Ctx, fk FK, sub subscription[K]) {
			if c.Null {
				c.Fail(n.ID, &flow.DecodeError{Part: "value", Err: errSubscription})
				return
			}
			var fv FV
			var at int64
			found := false
			if c.KeyNull {
				if sub.order != subscribeAndTell {
					env.Dropped(n.ID, nullForeignKey)
					return
				}
			} else {
				c.Wrote = true
				ref, err := kept.Touch(combinedKey[FK, K]{fk, sub.key})
				if err != nil {
					c.Break(n.ID, err)
					return
				}
				if sub.order == unsubscribe || sub.order == unsubscribeAndTell {
					kept.Unset(ref, c.Time, nil)
				} else {
					kept.Set(ref, sub, c.Time, nil)
				}
				if fv, at, found = get(c, fk); c.Missed() {
					return
				}
			}
			if sub.order == unsubscribe || sub.order == subscribeIfThereIs && !found {
				return
			}
			time := c.Time
			if found {
				c.Time = max(c.Time, at)
			}
			respond(c, sub, fv, found && sub.order != unsubscribeAndTell)
			c.Time = time
		}, nil
	}
}

// answeringAgain tells all subscribers of an update of the right table.
func answeringAgain[K, V, FK, FV any](n *topology.Node, responses *topology.Topic, by ForeignKey[K, V, FK, FV]) func(flow.Env, fn[K, response[FV]]) (tfn[FK, FV], error) {
	return func(env flow.Env, _ fn[K, response[FV]]) (tfn[FK, FV], error) {
		kept, respond := env.Store(by.store.Name).(*subscriptions[FK, K]), responder(env, n, responses, by)
		var prefix []byte
		return func(c *flow.Ctx, fk FK, ch change[FV]) {
			if ch.Stale {
				env.Dropped(n.ID, outOfOrder)
				return
			}
			var err error
			if prefix, err = by.combined.prefix(prefix[:0], fk); err != nil {
				c.Fail(n.ID, err)
				return
			}
			err = kept.Prefix(prefix, func(_ combinedKey[FK, K], sub subscription[K], _ int64) bool {
				respond(c, sub, ch.New, ch.Live)
				return c.Err == nil
			})
			if err != nil {
				c.Break(n.ID, err)
			}
		}, nil
	}
}

// resolving makes rows of the responses that belong to the left table as it is now.
func resolving[K, V, FV, R any](n *topology.Node, value serde.Serde[V], view func(flow.Env, bool) getter[K, V], j foreignJoin[V, FV, R]) func(flow.Env, tfn[K, R]) (fn[K, response[FV]], error) {
	null := nullness[R]()
	return func(env flow.Env, down tfn[K, R]) (fn[K, response[FV]], error) {
		get := view(env, false)
		var bytes []byte
		return func(c *flow.Ctx, k K, r response[FV]) {
			if c.KeyNull || c.Null {
				c.Fail(n.ID, &flow.DecodeError{Part: "value", Err: errResponse})
				return
			}
			v, _, live := get(c, k)
			if c.Missed() {
				return
			}
			same := live == r.live
			if same && live {
				var err error
				if bytes, err = value.Encode(bytes[:0], v); err != nil {
					c.Fail(n.ID, err)
					return
				}
				same = murmur3(bytes, digestSeed) == r.hash
			}
			if !same {
				env.Dropped(n.ID, staleResponse)
				return
			}
			var to change[R]
			if live && (r.found || j.left) {
				var fv *FV
				if r.found {
					fv = new(FV)
					*fv = r.value
				}
				c.Node = n.ID
				to.New = j.join(v, fv)
				to.Live = !null.of(to.New)
			}
			down(c, k, to)
		}, nil
	}
}
