package worker

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
)

// Goroutines of a node carry labels: what they are and, in a worker, the task that has its turn. Profiles show them, and
// a stop that is not done in time names who holds it up, and the author's function that they are in.
const (
	labelNode = "moldau_node"
	labelPart = "moldau_part"
	labelTask = "moldau_task"
)

// labels are those of a part of the node; task may be empty.
func (n *Node) labels(part, task string) context.Context {
	set := []string{labelNode, n.label(), labelPart, part}
	if task != "" {
		set = append(set, labelTask, task)
	}
	return pprof.WithLabels(context.Background(), pprof.Labels(set...))
}

// label tells the nodes of a process apart.
func (n *Node) label() string { return n.cfg.App + "/" + strconv.FormatInt(n.writer, 36) }

// labelled runs f as a part of the node.
func (n *Node) labelled(part string, f func()) {
	pprof.SetGoroutineLabels(n.labels(part, ""))
	f()
}

// enter says whose turn it is in a worker.
func (w *worker) enter(h *hosted) {
	if h.labels == nil {
		h.labels = w.n.labels("worker "+strconv.Itoa(w.index), h.name)
	}
	pprof.SetGoroutineLabels(h.labels)
	w.turnOf = h.name
}

// hanging says which tasks have their turn just now, and in which functions; without one, what else of the node is at work.
func (n *Node) hanging() string {
	var dump strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&dump, 1); err != nil {
		return err.Error()
	}
	return hangingIn(dump.String(), n.label())
}

// hangingIn reads it from a profile of goroutines.
func hangingIn(dump, node string) string {
	var tasks, parts []string
	for block := range strings.SplitSeq(dump, "\n\n") {
		if labelOf(block, labelNode) != node {
			continue
		}
		where := innermost(block)
		switch task := labelOf(block, labelTask); {
		case where == "":
		case task != "":
			tasks = append(tasks, "task "+task+" is in "+where)
		default:
			parts = append(parts, "the "+labelOf(block, labelPart)+" is in "+where)
		}
	}
	if len(tasks) == 0 {
		tasks = parts
	}
	slices.Sort(tasks)
	return strings.Join(slices.Compact(tasks), "; ")
}

// labelOf is the value of a label in a block of the profile.
func labelOf(block, name string) string {
	_, rest, ok := strings.Cut(block, strconv.Quote(name)+":")
	if !ok {
		return ""
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return ""
	}
	value, _ := strconv.Unquote(quoted)
	return value
}

// home begins the names of our functions, language those of the operators that call an author's.
const (
	home     = "github.com/moldau/moldau/"
	language = home + "stream."
)

// innermost is the function of an author that a goroutine is in, or else our own; "": the goroutine waits for work.
func innermost(block string) string {
	var own, before string
	for line := range strings.Lines(block) {
		f := strings.Fields(line) // # address function+offset file:line
		if len(f) < 4 || f[0] != "#" || f[1] == "labels:" {
			continue
		}
		name, _, _ := strings.Cut(f[2], "+0x")
		here := fmt.Sprintf("%s (%s)", name, path.Base(f[len(f)-1]))
		if strings.HasPrefix(name, language) {
			return cmp.Or(before, here)
		}
		if own == "" && strings.HasPrefix(name, home) {
			if strings.HasSuffix(name, "worker.(*worker).wait") || strings.HasSuffix(name, "worker.(*keeper).run") {
				return ""
			}
			own = here
		}
		before = here
	}
	return own
}
