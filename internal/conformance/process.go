package conformance

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

type (
	kv      = state.KeyValue[text, text]
	context = stream.Context[text, text]
	scope   = stream.Scope[text, text]
)

// processor is any of the vocabulary, with its store.
type processor struct {
	step     Step
	store    Step // that declares its store
	h        state.Handle
	kv       *state.KV[text, text]
	windows  *state.WindowStore[text, text]
	past     *state.VersionedStore[text, text]
	sessions *state.SessionStore[text, text]
	do       func(p *processor, c *context, r record)
	call     int64
}

func (p *processor) Init(s *scope) error {
	switch h := p.h.(type) {
	case global:
		p.kv = h.Open(s)
	case kv:
		p.kv = h.Open(s)
	case state.Window[text, text]:
		p.windows = h.Open(s)
	case state.Versioned[text, text]:
		p.past = h.Open(s)
	case state.Session[text, text]:
		p.sessions = h.Open(s)
	}
	if p.step.text("processor") == "punctuate" {
		every := s.EveryStreamTime
		if p.step.text("time") == "WALL_CLOCK_TIME" {
			every = s.Every
		}
		var stop func()
		stop = every(p.step.duration("intervalMs"), func(c *context, at time.Time) error {
			if p.call++; p.call == p.step.number("times") {
				stop()
			}
			for k, v := range p.kv.All() {
				c.Emit(k, limitless(str(v)+"@"+fmt.Sprint(at.UnixMilli())))
			}
			return nil
		})
	}
	return nil
}

func limitless(v string) text { return &v }

func (p *processor) Process(c *context, r record) error {
	p.do(p, c, r)
	return nil
}

func (p *processor) get(k text) text {
	v, _ := p.kv.Get(k)
	return v
}

func entries(all iter.Seq2[text, text]) string {
	var b strings.Builder
	for k, v := range all {
		fmt.Fprintf(&b, "%s=%s;", str(k), str(v))
	}
	return b.String()
}

// vocabulary is what processors do; all drop null keys but those that say so.
var vocabulary = map[string]func(p *processor, c *context, r record){
	"countKey": func(p *processor, c *context, r record) {
		n := dec(num(p.get(r.Key)) + 1)
		p.kv.Put(r.Key, n)
		c.Forward(r.With(limit(str(r.Value) + "#" + *n)))
	},
	"dedup": func(p *processor, c *context, r record) {
		if str(r.Value) != str(p.get(r.Key)) {
			p.kv.Put(r.Key, r.Value)
			c.Forward(r)
		}
	},
	"dump": func(p *processor, c *context, r record) {
		p.kv.Put(r.Key, r.Value)
		var all iter.Seq2[text, text]
		switch p.step.text("order") {
		case "all":
			all = p.kv.All()
		case "reverseAll":
			all = p.kv.AllReverse()
		case "range":
			all = p.kv.UpTo(r.Key)
		case "reverseRange":
			all = p.kv.FromReverse(r.Key)
		}
		c.Forward(r.With(limit(entries(all))))
	},
	"lookup": func(p *processor, c *context, r record) {
		c.Forward(r.With(limit(str(r.Value) + "+" + str(p.get(r.Key)))))
	},
	"punctuate":    func(p *processor, c *context, r record) { p.kv.Put(r.Key, r.Value) },
	"asOf":         asOf,
	"versionedOps": versionedOps,
	"windowScan":   windowScan,
	"sessionScan":  sessionScan,
	"keyValueOps": func(p *processor, c *context, r record) {
		var did string
		switch ((num(r.Value) % 5) + 5) % 5 {
		case 0:
			old, have := p.kv.Get(r.Key)
			if !have {
				p.kv.Put(r.Key, r.Value)
			}
			did = "putIfAbsent " + str(old)
		case 1:
			did = "delete " + str(p.get(r.Key))
			p.kv.Delete(r.Key)
		case 2:
			p.kv.Put(r.Key, r.Value)
			p.kv.Put(s(*r.Key+"x"), r.Value)
			did = "get " + str(p.get(r.Key)) + " " + str(p.get(s("k1x")))
		case 3:
			did = "prefixScan " + entries(p.kv.Prefix([]byte(*r.Key)))
		default:
			p.kv.Put(r.Key, r.Value)
			did = "range " + entries(p.kv.Range(s("k1"), s("k3")))
		}
		c.Forward(r.With(limit(did)))
	},
	"windowSum": func(p *processor, c *context, r record) {
		size := p.step.duration("sizeMs")
		at := r.Time.UnixMilli()
		start := time.UnixMilli(at - at%size.Milliseconds())
		old, _ := p.windows.Get(r.Key, start)
		sum := dec(num(old) + num(r.Value))
		p.windows.Put(r.Key, sum, start)
		c.Forward(r.With(sum))
	},
	"windowNear": func(p *processor, c *context, r record) {
		p.windows.Put(r.Key, r.Value, r.Time)
		var b strings.Builder
		from, to := p.near(r)
		for k, v := range p.windows.Fetch(r.Key, from, to) {
			fmt.Fprintf(&b, "%d=%s;", k.Start.UnixMilli(), str(v))
		}
		c.Forward(r.With(limit(b.String())))
	},
	"sessionNear": func(p *processor, c *context, r record) {
		p.putSession(r)
		from, to := p.near(r)
		c.Forward(r.With(limit(p.showSessions(p.sessions.Find(r.Key, from, to)))))
	},
}

// showSessions shows what a search finds. Java's in-memory stores give sessions of one end from the last start to the first.
func (p *processor) showSessions(found iter.Seq2[wkey, text]) string {
	var b strings.Builder
	var tied []string
	last := time.Time{}
	flush := func() {
		if p.store.text("storeType") == "inMemory" {
			slices.Reverse(tied)
		}
		b.WriteString(strings.Join(tied, ""))
		tied = tied[:0]
	}
	for k, v := range found {
		if !k.End.Equal(last) {
			flush()
		}
		last = k.End
		tied = append(tied, fmt.Sprintf("%d/%d=%s;", k.Start.UnixMilli(), k.End.UnixMilli(), str(v)))
	}
	flush()
	return b.String()
}

// putSession makes a session of a record, as long as its value says.
func (p *processor) putSession(r record) {
	start := r.Time.UnixMilli()
	p.sessions.Put(wkey{Key: r.Key, Span: window.Millis(start, start+floorMod(num(r.Value), 8)*p.step.number("unitMs"))}, r.Value)
}

// near is the time around a record.
func (p *processor) near(r record) (from, to time.Time) {
	at, near := r.Time.UnixMilli(), p.step.number("nearMs")
	return time.UnixMilli(max(0, at-near)), time.UnixMilli(at + near)
}

func shift(step Step) func(c *context, r record) error {
	return func(c *context, r record) error {
		at := max(0, r.Time.UnixMilli()+step.number("shiftMs"))
		r.Time = time.UnixMilli(at)
		r.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], stream.Header{Key: "p", Value: []byte("1")})
		c.Forward(r)
		return nil
	}
}

func (in *interpreter) process(step Step) any {
	from, name := in.stream(step, 0), step.text("processor")
	if step.text("op") == "processValues" {
		return in.processValues(from, step)
	}
	in.rekeyed[step.text("id")] = true
	if name == "shift" {
		return from.ProcessFunc(shift(step))
	}
	do := vocabulary[name]
	if do == nil {
		panic(unsupported("processor " + name))
	}
	h, store := in.processorStore(step), step
	if !step.has("storeKind") {
		store = in.vector.declares(step.text("store"))
	}
	return from.Process(func() stream.Processor[text, text, text, text] {
		return &processor{step: step, store: store, h: h, do: func(p *processor, c *context, r record) {
			if r.Key != nil {
				do(p, c, r)
			}
		}}
	}, h)
}

// declares is the step that declares a store for several processors.
func (v *Vector) declares(store string) Step {
	return v.Spec.Steps[slices.IndexFunc(v.Spec.Steps, func(s Step) bool { return s.has("storeKind") && s.text("store") == store })]
}

// processorStore is the store that a step declares or names.
func (in *interpreter) processorStore(step Step) state.Handle {
	name := step.text("store")
	if !step.has("storeKind") {
		if h := in.shared[name]; h != nil {
			return h
		}
		panic(unsupported("the global store of a processor"))
	}
	switch kind := step.text("storeKind"); kind {
	case "keyValue":
		return state.NewKeyValue(name, nullable, nullable)
	case "versioned":
		return versioned[text](step, nullable)
	case "window":
		h := state.NewWindow(name, nullable, nullable).Retention(step.duration("retentionMs")).Size(step.duration("sizeMs"))
		if step.text("storeType") == "persistent" {
			h = h.ExpireBySegment()
		}
		return h
	case "session":
		h := state.NewSession(name, nullable, nullable).Retention(step.duration("retentionMs"))
		if step.text("storeType") == "persistent" {
			h = h.ExpireBySegment()
		}
		return h
	default:
		panic(unsupported("processor store " + kind))
	}
}

// processRoute forwards to one child or to both.
func (in *interpreter) processRoute(step Step) any {
	children := step.texts("children")
	from := in.stream(step, 0).ProcessFunc(func(c *context, r record) error {
		switch {
		case r.Value == nil:
			c.Forward(r)
		case odd(r.Value):
			c.ForwardTo(children[1], r)
		default:
			c.ForwardTo(children[0], r)
		}
		return nil
	})
	for _, id := range children {
		in.objects[id] = from.Filter(func(_, v text) bool { return true }).Named(id)
		in.rekeyed[id] = true
	}
	return nil
}

// globalStore is a store that every task can look into; the step's function says what a record puts into it.
func (in *interpreter) globalStore(step Step) {
	f := mapper(step.text("fn"))
	h := state.NewKeyValue(step.text("store"), nullable, nullable)
	in.shared[step.text("store")] = in.b.GlobalStore(in.topic(step.text("topic"), step), h, func(r record) (text, text, error) {
		v, err := f(r.Key, r.Value)
		return r.Key, v, err
	})
}

type valueProcessor struct {
	h  state.Handle
	kv *state.KV[text, text]
}

func (p *valueProcessor) Init(s *stream.ValueScope) error {
	if h, ok := p.h.(kv); ok {
		p.kv = h.Open(s)
	}
	return nil
}

func (p *valueProcessor) Process(c *stream.ValueContext[text], r record) error {
	switch {
	case p.kv == nil: // twiceIfEven
		if !odd(r.Value) {
			c.Emit(r.Value)
			c.Emit(limit(str(r.Value) + "'"))
		}
	case r.Key == nil:
		c.Emit(r.Value)
	default: // numberValue
		v, _ := p.kv.Get(r.Key)
		n := dec(num(v) + 1)
		p.kv.Put(r.Key, n)
		c.Emit(limit(str(r.Value) + "#" + *n))
	}
	return nil
}

func (in *interpreter) processValues(from streamOf, step Step) any {
	if step.text("processor") == "twiceIfEven" {
		return from.ProcessValues(func() stream.ValueProcessor[text, text, text] { return &valueProcessor{} })
	}
	h := in.processorStore(step)
	return from.ProcessValues(func() stream.ValueProcessor[text, text, text] { return &valueProcessor{h: h} }, h)
}
