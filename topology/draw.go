package topology

import (
	"fmt"
	"strings"
)

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
		for i, n := range s.Nodes {
			if n.Pattern != "" {
				edge(place(fmt.Sprintf("p%d_%d", s.ID, i), n.Pattern, "topic"), ids[n.Name], false)
			}
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
