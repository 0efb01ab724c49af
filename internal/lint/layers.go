package lint

import (
	"slices"
	"strconv"
	"strings"
)

// A layer is one room of the house: which others it may import, and why no more. Packages below it belong to it unless
// they have an entry of their own. A package in no room, and an import not listed, are findings: a new room or a new
// way between two is a decision, and this is where it is written down.
type layer struct {
	room string
	may  []string
	why  string
}

var layers = [...]layer{
	{"serde", nil, "bytes and values: usable without Kafka, without a topology"},
	{"window", []string{"serde"}, "arithmetic and the keys it leads to"},
	{"internal/flow", nil, "the seam between language and runtime: whatever it imported, both would"},
	{"internal/table", []string{"internal/flow", "serde", "window"}, "a table in memory; what lies below it is flow.Tier"},
	{"internal/tier", []string{"internal/flow"}, "an ordered map of bytes on a disk; it knows no types"},
	{"state", []string{"internal/flow", "internal/table", "serde", "window"}, "handles and views: it opens stores, no task, no client"},
	{"topology", []string{"internal/flow", "state"}, "a graph that describes what runs and never runs it, whatever language made it"},
	{"stream", []string{"internal/flow", "internal/table", "serde", "state", "topology", "window"}, "a language over topology: another may stand beside it, so the runtime must not be in it"},

	{"internal/assign", nil, "a pure function of members, tasks and lags"},
	{"internal/cluster", []string{"internal/assign", "internal/flow"}, "the seam to the log: what it offers is independent of who uses it"},
	{"internal/cluster/franz", []string{"internal/assign", "internal/cluster", "internal/flow"}, "the one client of a cluster; it decides nothing"},
	{"internal/task", []string{"internal/flow", "topology"}, "a step machine over untyped nodes; it imports neither stream nor state, and has no client"},
	{"internal/commit", []string{"internal/cluster", "internal/flow", "internal/task"}, "the protocol alone: it says what to do next and does none of it"},
	{"internal/restore", []string{"internal/cluster", "internal/flow"}, "follows a changelog into a store, whoever owns the task"},
	{"internal/worker", []string{"internal/assign", "internal/cluster", "internal/commit", "internal/flow", "internal/restore", "internal/task", "internal/tier", "topology"}, "the loop and its supervisor: the edge where effects happen"},
	{"internal/broker", nil, "a Kafka broker: the library is one of its clients and no more"},
	{"internal/console", nil, "it shows status structs; it never reaches into a running worker"},
	{"internal/lint", nil, "it judges source, and needs none of it"},
	{"streamtest", []string{"internal/cluster", "internal/commit", "internal/flow", "internal/table", "internal/task", "internal/tier", "internal/worker", "serde", "state", "stream", "topology", "window"}, "the real task loop without a broker"},
	{"internal/conformance", []string{"internal/table", "serde", "state", "stream", "streamtest", "topology", "window"}, "holds the public language against recordings; stores are read as they are"},
	{".", []string{"internal/broker", "internal/cluster", "internal/cluster/franz", "internal/flow", "internal/table", "internal/task", "internal/tier", "internal/worker", "serde", "state", "stream", "topology", "window"}, "the front door: the one place where all parts meet"},
	{"internal/judges", []string{".", "serde", "state", "stream", "streamtest", "topology", "window"}, "applications for Java to judge: they use what every user can"},
	{"cmd", []string{".", "internal/broker", "topology"}, "commands call the library, which never calls them"},
	{"examples", []string{".", "serde", "state", "stream", "streamtest", "topology", "window"}, "an example uses what every user can"},
	{"benchmarks", []string{".", "serde", "state", "stream", "topology", "window"}, "a benchmark measures what every user gets"},
}

// A guest is a module from elsewhere and the rooms that may import it. A dependency is a decision as well.
type guest struct {
	path  string
	rooms []string
	why   string
}

var guests = [...]guest{
	{"github.com/cockroachdb/pebble/v2", []string{"internal/tier"}, "one room knows what the disk is made of"},
	{"github.com/cockroachdb/pebble/v2/vfs", []string{"internal/tier", "internal/broker", "internal/worker", "streamtest", "."}, "a file system that tests can crash"},
	{"github.com/cockroachdb/errors/oserror", []string{"internal/tier", "internal/broker"}, "the errors of that file system"},
	{"github.com/golang-jwt/jwt/v5", []string{"internal/broker/auth"}, "signatures of tokens are checked by code that many look at"},
	{"github.com/google/btree", []string{"internal/table"}, "the ordered index of a table"},
	{"github.com/google/uuid", []string{"internal/broker", "serde"}, "a type that users have, and the shape of Kafka's ids"},
	{"github.com/hamba/avro/v2", []string{"serde/avro"}, "only who wants Avro links it"},
	{"google.golang.org/protobuf", []string{"serde/protobuf"}, "only who wants Protobuf links it"},
	{"github.com/klauspost/compress", []string{"internal/broker/log"}, "compaction must open compressed batches"},
	{"github.com/pierrec/lz4/v4", []string{"internal/broker/log"}, "compaction must open compressed batches"},
	{"github.com/prometheus/client_golang", []string{".", "internal/worker"}, "metrics are made where they are known and served at the front door"},
	{"github.com/twmb/franz-go", []string{"internal/broker", "internal/cluster/franz", ".", "cmd", "examples", "benchmarks"}, "one room talks to the cluster; the broker speaks the same protocol, and examples are clients"},
	{"golang.org/x/sync", []string{"internal/broker", "internal/cluster/franz", "internal/worker"}, "only the edge has goroutines to group"},
	{"golang.org/x/sys", []string{"internal/broker", "internal/tier", "."}, "only the edge asks the system"},
}

// imports holds every import against layers and guests.
func (r *report) imports() {
	own := roomOf(r.room)
	if own == nil {
		r.add(r.files[0].Name.Pos(), "import", "package %s is in no room: add it to layers in internal/lint, with its reason", r.room)
		return
	}
	for _, f := range r.files {
		for _, spec := range f.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			first, _, _ := strings.Cut(path, "/")
			if to := room(r.root, path); to != "" {
				if other := roomOf(to); other == nil || other.room != own.room && !slices.Contains(own.may, other.room) {
					r.add(spec.Pos(), "import", "%s must not import %s: %s", own.room, to, own.why)
				}
			} else if strings.Contains(first, ".") {
				switch g := guestOf(path); {
				case g == nil:
					r.add(spec.Pos(), "import", "%s is a new dependency: add it to guests in internal/lint, with its reason", path)
				case !slices.ContainsFunc(g.rooms, func(in string) bool { return within(r.room, in) }):
					r.add(spec.Pos(), "import", "%s must not import %s: %s", own.room, path, g.why)
				}
			}
		}
	}
}

// roomOf is the layer that a package belongs to, guestOf the entry for an import: the ones with the longest path.

func roomOf(room string) *layer {
	var best *layer
	for _, l := range layers {
		if within(room, l.room) && (best == nil || len(l.room) > len(best.room)) {
			best = &l
		}
	}
	return best
}

func guestOf(path string) *guest {
	var best *guest
	for _, g := range guests {
		if within(path, g.path) && (best == nil || len(g.path) > len(best.path)) {
			best = &g
		}
	}
	return best
}
