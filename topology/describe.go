package topology

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
)

// Description is a topology for people and tools: no functions, only names. Its JSON form is stable.
type Description struct {
	Subs    []SubDescription    `json:"subTopologies"`
	Globals []GlobalDescription `json:"globalTables,omitempty"`
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
	Stores   []string `json:"stores,omitempty"`
	Children []string `json:"children,omitempty"`
}

// StoreDescription is one store.
type StoreDescription struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Changelog string `json:"changelog,omitempty"`
	Retention int64  `json:"retentionMs,omitempty"`
}

// GlobalDescription is one global table.
type GlobalDescription struct {
	Topic string `json:"topic"`
	Store string `json:"store"`
}

// Describe takes the topology down in words.
func (t *Topology) Describe() Description {
	var d Description
	for _, s := range t.Subs {
		sub := SubDescription{ID: s.ID}
		for _, n := range s.Nodes {
			node := NodeDescription{Name: n.Label(), Kind: n.Kind, At: filepath.Base(n.At)}
			if n.Source != nil {
				node.Topics = append(node.Topics, n.Source.Logical())
			}
			for _, topic := range n.Sinks {
				node.Topics = append(node.Topics, topic.Logical())
			}
			for _, st := range n.Stores {
				node.Stores = append(node.Stores, st.Spec.Name)
			}
			for _, g := range n.Globals {
				node.Stores = append(node.Stores, g.Store.Spec.Name)
			}
			for _, child := range s.Nodes {
				for _, p := range child.Parents {
					if p == n {
						node.Children = append(node.Children, child.Label())
					}
				}
			}
			sub.Nodes = append(sub.Nodes, node)
		}
		for _, st := range s.Stores {
			one := StoreDescription{Name: st.Spec.Name, Kind: string(st.Spec.Kind), Retention: st.Spec.Retention}
			if st.Topic != nil {
				one.Changelog = st.Topic.Logical()
			}
			sub.Stores = append(sub.Stores, one)
		}
		d.Subs = append(d.Subs, sub)
	}
	for _, g := range t.Globals {
		d.Globals = append(d.Globals, GlobalDescription{g.Topic.Logical(), g.Store.Spec.Name})
	}
	return d
}

// JSON is the description, indented.
func (d Description) JSON() []byte {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic(err) // plain structs of strings
	}
	return append(b, '\n')
}

// String is the description as text, in the manner of Kafka Streams.
func (d Description) String() string {
	var b strings.Builder
	for _, s := range d.Subs {
		fmt.Fprintf(&b, "Sub-topology %d\n", s.ID)
		for _, n := range s.Nodes {
			fmt.Fprintf(&b, "  %s", n.Name)
			if len(n.Topics) > 0 {
				fmt.Fprintf(&b, " (%s)", strings.Join(n.Topics, ", "))
			}
			if len(n.Stores) > 0 {
				fmt.Fprintf(&b, " [%s]", strings.Join(n.Stores, ", "))
			}
			if len(n.Children) > 0 {
				fmt.Fprintf(&b, " --> %s", strings.Join(n.Children, ", "))
			}
			b.WriteByte('\n')
		}
		for _, st := range s.Stores {
			fmt.Fprintf(&b, "  store %s: %s", st.Name, st.Kind)
			if st.Retention > 0 {
				fmt.Fprintf(&b, ", %d ms", st.Retention)
			}
			if st.Changelog != "" {
				fmt.Fprintf(&b, ", %s", st.Changelog)
			}
			b.WriteByte('\n')
		}
	}
	for _, g := range d.Globals {
		fmt.Fprintf(&b, "Global table %s (%s)\n", g.Store, g.Topic)
	}
	return b.String()
}

// edges calls f for every arrow of a drawing: between operators, topics and stores.
func (d Description) edges(node func(id, label, shape string), edge func(from, to string, dashed bool)) {
	seen := map[string]bool{}
	place := func(id, label, shape string) string {
		if !seen[id] {
			seen[id] = true
			node(id, label, shape)
		}
		return id
	}
	for _, s := range d.Subs {
		ids := map[string]string{}
		for i, n := range s.Nodes {
			ids[n.Name] = place(fmt.Sprintf("n%d_%d", s.ID, i), n.Name, "operator")
		}
		for _, n := range s.Nodes {
			for _, topic := range n.Topics {
				id := place("t_"+topic, topic, "topic")
				if n.Kind == "source" {
					edge(id, ids[n.Name], false)
				} else {
					edge(ids[n.Name], id, false)
				}
			}
			for _, st := range n.Stores {
				edge(ids[n.Name], place("s_"+st, st, "store"), true)
			}
			for _, child := range n.Children {
				edge(ids[n.Name], ids[child], false)
			}
		}
	}
	for _, g := range d.Globals {
		edge(place("t_"+g.Topic, g.Topic, "topic"), place("s_"+g.Store, g.Store, "store"), false)
	}
}

// Mermaid is a drawing for Markdown pages.
func (d Description) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	shapes := map[string][2]string{"operator": {"[", "]"}, "topic": {"([", "])"}, "store": {"[(", ")]"}}
	clean := strings.NewReplacer(".", "_", "-", "_")
	d.edges(func(id, label, shape string) {
		fmt.Fprintf(&b, "  %s%s\"%s\"%s\n", clean.Replace(id), shapes[shape][0], label, shapes[shape][1])
	}, func(from, to string, dashed bool) {
		arrow := "-->"
		if dashed {
			arrow = "-.-"
		}
		fmt.Fprintf(&b, "  %s %s %s\n", clean.Replace(from), arrow, clean.Replace(to))
	})
	return b.String()
}

// Dot is a drawing for Graphviz.
func (d Description) Dot() string {
	var b strings.Builder
	b.WriteString("digraph topology {\n")
	shapes := map[string]string{"operator": "box", "topic": "cds", "store": "cylinder"}
	d.edges(func(id, label, shape string) {
		fmt.Fprintf(&b, "  %q [label=%q shape=%s];\n", id, label, shapes[shape])
	}, func(from, to string, dashed bool) {
		style := ""
		if dashed {
			style = " [style=dashed arrowhead=none]"
		}
		fmt.Fprintf(&b, "  %q -> %q%s;\n", from, to, style)
	})
	b.WriteString("}\n")
	return b.String()
}
