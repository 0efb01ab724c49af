package topology

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Description is a topology for people and tools: no functions, only names. Two builds of one program give the same one. Its
// JSON form is stable: fields may be added, none changes its meaning.
type Description struct {
	Subs    []SubDescription    `json:"subTopologies"`
	Globals []GlobalDescription `json:"globalTables,omitempty"`
	Topics  []TopicDescription  `json:"topics,omitempty"` // all but changelogs, in order of first use
	// Gone are the stores of earlier versions whose changelogs are still there, by name. Only the record of what an application
	// runs has them; see Succeed.
	Gone []StoreDescription `json:"gone,omitempty"`
}

// SubDescription is one sub-topology.
type SubDescription struct {
	ID     int                `json:"id"`
	Nodes  []NodeDescription  `json:"nodes"`
	Stores []StoreDescription `json:"stores,omitempty"`
}

// NodeDescription is one operator. Topic names of internal topics are without the application's.
type NodeDescription struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	At       string   `json:"at"` // file:line
	Topics   []string `json:"topics,omitempty"`
	Pattern  string   `json:"pattern,omitempty"` // of sources that read whatever topics match it
	Stores   []string `json:"stores,omitempty"`
	Parents  []string `json:"parents,omitempty"`
	Children []string `json:"children,omitempty"`
}

// StoreDescription is one store. Key and Value say how they are written; durations are in milliseconds.
type StoreDescription struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Key       string `json:"key,omitempty"`
	Value     string `json:"value,omitempty"`
	Changelog string `json:"changelog,omitempty"`
	Source    bool   `json:"source,omitempty"` // Changelog is the topic that the table in the store is read from
	Retention int64  `json:"retentionMs,omitempty"`
	TTL       int64  `json:"ttlMs,omitempty"`
}

// GlobalDescription is one global table.
type GlobalDescription struct {
	Topic string `json:"topic"`
	Store string `json:"store"`
	Key   string `json:"key,omitempty"`
	Value string `json:"value,omitempty"`
}

// TopicDescription is a topic that is read or written. Partitions is what its author asked for, or what the application runs
// with; 0: neither is known.
type TopicDescription struct {
	Name       string    `json:"name"`
	Kind       TopicKind `json:"kind"`
	Key        string    `json:"key,omitempty"`
	Value      string    `json:"value,omitempty"`
	Partitions int32     `json:"partitions,omitempty"`
	Read       bool      `json:"read,omitempty"`
	Written    bool      `json:"written,omitempty"`
}

// Describe takes the topology down in words.
func (t *Topology) Describe() Description {
	var d Description
	read, written := map[*Topic]bool{}, map[*Topic]bool{}
	for _, s := range t.Subs {
		sub := SubDescription{ID: s.ID}
		for _, n := range s.Nodes {
			sub.Nodes = append(sub.Nodes, describe(n, s.Nodes))
			if n.Source != nil {
				read[n.Source] = true
			}
			for _, topic := range n.Sinks {
				written[topic] = true
			}
		}
		for _, st := range s.Stores {
			one := StoreDescription{Name: st.Spec.Name, Kind: string(st.Spec.Kind), Key: st.Spec.Key, Value: st.Spec.Value,
				Retention: st.Spec.Retention, TTL: st.Spec.TTL}
			if st.Topic != nil {
				one.Changelog, one.Source = st.Topic.Logical(), st.Replay != nil
			}
			sub.Stores = append(sub.Stores, one)
		}
		d.Subs = append(d.Subs, sub)
	}
	for _, g := range t.Globals {
		d.Globals = append(d.Globals, GlobalDescription{g.Topic.Logical(), g.Store.Spec.Name, g.Store.Spec.Key, g.Store.Spec.Value})
		read[g.Topic] = true
	}
	for _, topic := range t.Topics {
		d.Topics = append(d.Topics, TopicDescription{Name: topic.Logical(), Kind: topic.Kind, Key: topic.Key, Value: topic.Value,
			Partitions: topic.Partitions, Read: read[topic], Written: written[topic]})
	}
	return d
}

func describe(n *Node, all []*Node) NodeDescription {
	one := NodeDescription{Name: n.Label(), Kind: n.Kind, At: filepath.Base(n.At)}
	switch {
	case n.Source == nil:
	case n.Source.Kind == Pattern:
		one.Pattern = n.Source.Name
	default:
		one.Topics = append(one.Topics, n.Source.Logical())
	}
	for _, topic := range n.Sinks {
		one.Topics = append(one.Topics, topic.Logical())
	}
	for _, st := range n.Stores {
		one.Stores = append(one.Stores, st.Spec.Name)
	}
	for _, g := range n.Globals {
		one.Stores = append(one.Stores, g.Store.Spec.Name)
	}
	for _, p := range n.Parents {
		one.Parents = append(one.Parents, p.Label())
	}
	for _, child := range all {
		if slices.Contains(child.Parents, n) {
			one.Children = append(one.Children, child.Label())
		}
	}
	return one
}

// JSON is the description, indented. ParseDescription reads it.
func (d Description) JSON() []byte {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic(err) // plain structs of strings
	}
	return append(b, '\n')
}

// ParseDescription reads what JSON has written.
func ParseDescription(b []byte) (Description, error) {
	var d Description
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&d); err != nil {
		return d, fmt.Errorf("this is no description of a topology in JSON: %w", err)
	}
	return d, nil
}

// Formats are what Format knows.
func Formats() []string { return []string{"text", "json", "dot", "mermaid"} }

// Format is the description in one of Formats; "" is text.
func (d Description) Format(name string) (string, error) {
	switch name {
	case "", "text":
		return d.String(), nil
	case "json":
		return string(d.JSON()), nil
	case "dot":
		return d.Dot(), nil
	case "mermaid":
		return d.Mermaid(), nil
	}
	return "", fmt.Errorf("there is no format %q; use one of %s", name, strings.Join(Formats(), ", "))
}

// String is the description in the text form of Kafka Streams' TopologyDescription, which tools that draw topologies read, with a
// line more for each store.
func (d Description) String() string {
	var b strings.Builder
	b.WriteString("Topologies:\n")
	names := func(list []string) string {
		if len(list) == 0 {
			return "none"
		}
		return strings.Join(list, ", ")
	}
	for _, s := range d.Subs {
		fmt.Fprintf(&b, "   Sub-topology: %d\n", s.ID)
		for _, n := range s.Nodes {
			switch topics := strings.Join(n.Topics, ", "); {
			case n.Pattern != "":
				fmt.Fprintf(&b, "    Source: %s (topics: %s)\n      --> %s\n", n.Name, n.Pattern, names(n.Children))
			case n.Kind == "source":
				fmt.Fprintf(&b, "    Source: %s (topics: [%s])\n      --> %s\n", n.Name, topics, names(n.Children))
			case len(n.Topics) == 1 && len(n.Children) == 0:
				fmt.Fprintf(&b, "    Sink: %s (topic: %s)\n      <-- %s\n", n.Name, topics, names(n.Parents))
			default:
				fmt.Fprintf(&b, "    Processor: %s (stores: [%s])\n      --> %s\n      <-- %s\n", n.Name, strings.Join(n.Stores, ", "), names(n.Children), names(n.Parents))
			}
		}
		for _, st := range s.Stores {
			fmt.Fprintf(&b, "    Store: %s (%s)\n", st.Name, st.details())
		}
		b.WriteByte('\n')
	}
	for i, g := range d.Globals {
		fmt.Fprintf(&b, "   Sub-topology: %d for global store (will not generate tasks)\n    Source: source of %s (topics: [%s])\n      --> %s\n    Processor: %s (stores: [%s])\n      --> none\n      <-- source of %s\n\n",
			len(d.Subs)+i, g.Store, g.Topic, g.Store, g.Store, g.Store, g.Store)
	}
	return b.String()
}

// details are what there is to say about a store besides its name.
func (s StoreDescription) details() string {
	text := s.Kind
	if s.Key != "" || s.Value != "" {
		text += fmt.Sprintf(", %s to %s", s.Key, s.Value)
	}
	if s.Retention > 0 {
		text += fmt.Sprintf(", kept %d ms", s.Retention)
	}
	if s.TTL > 0 {
		text += fmt.Sprintf(", lives %d ms", s.TTL)
	}
	switch {
	case s.Changelog == "":
		return text + ", no changelog"
	case s.Source:
		return text + ", restored from source topic " + s.Changelog
	}
	return text + ", changelog " + s.Changelog
}
