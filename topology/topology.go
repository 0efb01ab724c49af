package topology

// Topology is a checked graph, cut into sub-topologies. It does not change; applications and tests may share it.
type Topology struct {
	Nodes   []*Node // parents before children
	Subs    []*Sub
	Globals []*Global
	Topics  []*Topic // all but changelogs

	found map[*Topic][]*Topic // the topics that patterns have matched; nil: not resolved
}

// Sub is a sub-topology: what one kind of task runs. Its tasks are named <ID>_<partition>, one per partition of its
// largest source topic.
type Sub struct {
	ID      int
	Nodes   []*Node  // parents before children
	Sources []*Topic // in order of first use
	Sinks   []*Topic // the topics it writes, as far as known before it runs
	Stores  []*Store // in order of first use
	Globals []*Global
}

// Sub returns the sub-topology that reads a topic.
func (t *Topology) Sub(source *Topic) *Sub {
	for _, s := range t.Subs {
		for _, have := range s.Sources {
			if have == source {
				return s
			}
		}
	}
	return nil
}

// Store returns the store of that name and the sub-topology it belongs to; a global table's store has none.
func (t *Topology) Store(name string) (*Store, *Sub) {
	for _, s := range t.Subs {
		for _, st := range s.Stores {
			if st.Spec.Name == name {
				return st, s
			}
		}
	}
	for _, g := range t.Globals {
		if g.Store.Spec.Name == name {
			return g.Store, nil
		}
	}
	return nil, nil
}

// Build checks the graph and cuts it. The error is of type Mistakes and holds everything that is wrong.
func (g *Graph) Build() (*Topology, error) {
	mistakes := append(Mistakes(nil), g.mistakes...)
	mistakes = append(mistakes, g.validate()...)
	mistakes = append(mistakes, g.overlaps()...)
	t := &Topology{Nodes: g.nodes, Subs: cut(g.nodes), Globals: g.globals, Topics: g.topics}
	mistakes = append(mistakes, t.disagreements()...)
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	return t, nil
}

// cut finds the connected components over edges and shared stores, in the order of their first nodes.
func cut(nodes []*Node) []*Sub {
	group := make([]int, len(nodes))
	for i := range group {
		group[i] = i
	}
	find := func(i int) int {
		for group[i] != i {
			group[i] = group[group[i]]
			i = group[i]
		}
		return i
	}
	union := func(a, b int) {
		a, b = find(a), find(b)
		group[max(a, b)] = min(a, b)
	}
	first := map[*Store]int{}
	for _, n := range nodes {
		for _, p := range n.Parents {
			union(n.ID, p.ID)
		}
		for _, w := range n.With {
			union(n.ID, w.ID)
		}
		for _, s := range n.Stores {
			if other, ok := first[s]; ok {
				union(n.ID, other)
			} else {
				first[s] = n.ID
			}
		}
	}
	var subs []*Sub
	byRoot := map[int]*Sub{}
	for _, n := range nodes {
		r := find(n.ID)
		sub := byRoot[r]
		if sub == nil {
			sub = &Sub{ID: len(subs)}
			byRoot[r], subs = sub, append(subs, sub)
		}
		sub.Nodes = append(sub.Nodes, n)
		if n.Source != nil {
			sub.Sources = appendNew(sub.Sources, n.Source)
		}
		for _, t := range n.Sinks {
			sub.Sinks = appendNew(sub.Sinks, t)
		}
		for _, s := range n.Stores {
			sub.Stores = appendNew(sub.Stores, s)
		}
		for _, gl := range n.Globals {
			sub.Globals = appendNew(sub.Globals, gl)
		}
	}
	return subs
}

func appendNew[T comparable](list []T, one T) []T {
	for _, have := range list {
		if have == one {
			return list
		}
	}
	return append(list, one)
}
