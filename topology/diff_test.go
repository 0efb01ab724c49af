package topology_test

import (
	"strings"
	"testing"

	"github.com/moldau/moldau/topology"
)

// app is a description to be changed.
func app(change func(d *topology.Description)) topology.Description {
	d := topology.Description{
		Subs: []topology.SubDescription{{ID: 0}, {ID: 1, Stores: []topology.StoreDescription{
			{Name: "counts", Kind: "key-value", Key: "string", Value: "int64", Changelog: "counts-changelog"},
			{Name: "hours", Kind: "window", Key: "string", Value: "int64", Changelog: "hours-changelog", Retention: 3600000},
		}}},
		Globals: []topology.GlobalDescription{{Topic: "airports", Store: "airport", Key: "string", Value: "json"}},
		Topics: []topology.TopicDescription{
			{Name: "in", Kind: topology.External, Key: "string", Value: "json", Read: true},
			{Name: "by-word-repartition", Kind: topology.Repartition, Key: "string", Value: "string", Partitions: 4},
		},
	}
	if change != nil {
		change(&d)
	}
	return d
}

func TestDiff(t *testing.T) {
	counts := func(d *topology.Description) *topology.StoreDescription { return &d.Subs[1].Stores[0] }
	hours := func(d *topology.Description) *topology.StoreDescription { return &d.Subs[1].Stores[1] }
	tests := []struct {
		name   string
		change func(d *topology.Description)
		want   string // lines without the way out
	}{
		{"nothing", nil, ""},
		{"operators and topics from outside", func(d *topology.Description) {
			d.Subs[0].Nodes = []topology.NodeDescription{{Name: "filter-1"}}
			d.Topics[0] = topology.TopicDescription{Name: "other", Kind: topology.External, Value: "bytes"}
		}, ""},
		{"a store more", func(d *topology.Description) {
			d.Subs[0].Stores = append(d.Subs[0].Stores, topology.StoreDescription{Name: "seen", Kind: "key-value", Key: "string", Value: "bytes"})
		}, `+ store "seen": key-value, string to bytes, no changelog; it begins empty: what was read before does not count`},
		{"a store more, restored from its topic", func(d *topology.Description) {
			d.Subs[0].Stores = append(d.Subs[0].Stores, topology.StoreDescription{Name: "last", Kind: "key-value", Key: "string", Value: "json", Changelog: "in", Source: true})
		}, `+ store "last": key-value, string to json, restored from source topic in, up to the committed position`},
		{"a store less", func(d *topology.Description) { d.Subs[1].Stores = d.Subs[1].Stores[1:] },
			`- store "counts": key-value, string to int64, changelog counts-changelog; nobody reads its changelog any more, and nobody deletes it`},
		{"another serde", func(d *topology.Description) { counts(d).Value = "string" },
			`! store "counts": its values were written as int64 and are now string: what is in its changelog cannot be read`},
		{"another serde of keys", func(d *topology.Description) { counts(d).Key = "int32" },
			`! store "counts": its keys were written as string and are now int32: what is in its changelog cannot be read`},
		{"a serde that does not say what it writes", func(d *topology.Description) { counts(d).Value = "" }, ""},
		{"another kind", func(d *topology.Description) { *counts(d) = *hours(d); counts(d).Name = "counts" },
			`! store "counts": it was a key-value store and becomes a window store, whose changelog is another one`},
		{"longer", func(d *topology.Description) { hours(d).Retention *= 2 },
			`~ store "hours": entries are kept 7200000 ms, not 3600000 ms; those that are gone do not come back. Raise retention.ms of its changelog, which was made for less`},
		{"shorter", func(d *topology.Description) { hours(d).Retention = 1 },
			`~ store "hours": entries are kept 1 ms, not 3600000 ms; older ones go`},
		{"values that live for a while", func(d *topology.Description) { counts(d).TTL = 10 },
			`~ store "counts": values live 10 ms, not 0 ms (0: for ever)`},
		{"no changelog any more", func(d *topology.Description) { counts(d).Changelog = "" },
			`~ store "counts": it has no changelog any more: what it holds is lost when its task moves or starts again`},
		{"restored from its topic from now on", func(d *topology.Description) { counts(d).Changelog, counts(d).Source = "in", true },
			`~ store "counts": it is restored from source topic "in", up to the committed position; nobody reads its own changelog any more, and nobody deletes it`},
		{"restored from its topic, with another serde", func(d *topology.Description) {
			counts(d).Changelog, counts(d).Source, counts(d).Value = "in", true, "string"
		}, `! store "counts": its values were written as int64 and are now string: what is in the state directory cannot be read
~ store "counts": it is restored from source topic "in", up to the committed position; nobody reads its own changelog any more, and nobody deletes it`},
		{"another place", func(d *topology.Description) {
			d.Subs[0].Stores, d.Subs[1].Stores = d.Subs[1].Stores[:1], d.Subs[1].Stores[1:]
		}, `~ store "counts": it moves from sub-topology 1 to 0: local state is not found there, and is restored from the changelog`},
		{"another topic of a global table", func(d *topology.Description) { d.Globals[0].Topic = "ports" },
			`! global table "airport": it was made from topic "airports" and is now from "ports": what lies on disk is of the old one`},
		{"no global table", func(d *topology.Description) { d.Globals = nil },
			`- global table "airport": nobody reads topic "airports" for it any more`},
		{"a repartition topic more", func(d *topology.Description) {
			d.Topics = append(d.Topics, topology.TopicDescription{Name: "r-repartition", Kind: topology.Repartition})
		}, `+ internal topic "r-repartition": it will be created`},
		{"a repartition topic less", func(d *topology.Description) { d.Topics = d.Topics[:1] },
			`! internal topic "by-word-repartition": records may be in it that the old version has written and nobody would read`},
		{"more partitions", func(d *topology.Description) { d.Topics[1].Partitions = 8 },
			`! internal topic "by-word-repartition": it has 4 partitions and would have 8: keys would be looked for in the wrong task`},
		{"a number of partitions that is not known yet", func(d *topology.Description) { d.Topics[1].Partitions = 0 }, ""},
		{"other values under way", func(d *topology.Description) { d.Topics[1].Value = "changes of string" },
			`! internal topic "by-word-repartition": its values were written as string and are now changes of string: what is in it cannot be read`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changes := topology.Diff(app(nil), app(test.change))
			var lines []string
			for _, c := range changes {
				line, way, _ := strings.Cut(c.String(), "\n")
				lines = append(lines, line)
				if c.Unsafe != strings.HasPrefix(line, "!") || c.Unsafe == (way == "") {
					t.Errorf("an unsafe change, and no other, has a way out: %s", c)
				}
			}
			if got := strings.Join(lines, "\n"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
			if (len(changes.Unsafe()) > 0) != strings.Contains(test.want, "!") {
				t.Error("Unsafe does not agree")
			}
		})
	}
	if _, err := app(nil).Format("svg"); err == nil {
		t.Error("a format that is not there")
	}
	sourced := app(func(d *topology.Description) { counts(d).Changelog, counts(d).Source = "in", true })
	if unsafe := topology.Diff(sourced, app(nil)).Unsafe(); len(unsafe) != 1 || !strings.Contains(unsafe[0].Note, "which does not hold what the store has now") {
		t.Errorf("from the topic to a changelog of its own: %v", unsafe)
	}
	other := app(func(d *topology.Description) { counts(d).Changelog, counts(d).Source = "other", true })
	if changes := topology.Diff(sourced, other).String(); changes != `~ store "counts": it was made from topic "in" and begins anew with topic "other"` {
		t.Errorf("another topic: %s", changes)
	}
	if text := sourced.String(); !strings.Contains(text, "Store: counts (key-value, string to int64, restored from source topic in)") {
		t.Errorf("described as\n%s", text)
	}
	if len(topology.Diff(app(func(d *topology.Description) { counts(d).Changelog = "" }), app(nil)).Unsafe()) != 1 {
		t.Error("a changelog that does not hold the state yet")
	}
}

// A store that goes and comes back finds its changelog as it was left: that is said, and refused where it could not be read.
func TestDiffOfStoresThatComeBack(t *testing.T) {
	first := app(nil)
	without := topology.Succeed(first, app(func(d *topology.Description) { d.Subs[1].Stores = d.Subs[1].Stores[1:] }))
	later := topology.Succeed(without, app(func(d *topology.Description) { d.Subs[1].Stores = nil }))
	if len(later.Gone) != 2 || later.Gone[0].Name != "counts" || later.Gone[1].Name != "hours" {
		t.Fatalf("gone: %v", later.Gone)
	}
	for _, test := range []struct {
		name   string
		change func(st *topology.StoreDescription)
		want   string
	}{
		{"as it was", nil, `+ store "counts": key-value, string to int64, changelog counts-changelog; an earlier version had it: it begins with what that has left in the changelog, and what was read since does not count`},
		{"other values", func(st *topology.StoreDescription) { st.Value = "string" },
			`! store "counts": its values were written as int64 and are now string: what is in the changelog that an earlier version has left cannot be read`},
		{"another kind", func(st *topology.StoreDescription) { st.Kind = "window" },
			`! store "counts": an earlier version had it as a key-value store, and now it is a window store: the changelog that is still there is another one`},
		{"without a changelog", func(st *topology.StoreDescription) { st.Changelog = "" },
			`+ store "counts": key-value, string to int64, no changelog; it begins empty: what was read before does not count`},
	} {
		next := app(func(d *topology.Description) {
			d.Subs[1].Stores = d.Subs[1].Stores[:1]
			if test.change != nil {
				test.change(&d.Subs[1].Stores[0])
			}
		})
		got, _, _ := strings.Cut(topology.Diff(later, next).String(), "\n")
		if got != test.want {
			t.Errorf("%s\n got  %s\n want %s", test.name, got, test.want)
		}
		if then := topology.Succeed(later, next); len(then.Gone) != 1 || then.Gone[0].Name != "hours" {
			t.Errorf("%s: gone then: %v", test.name, then.Gone)
		}
	}
	if back := topology.Succeed(without, first); back.Gone != nil || string(back.JSON()) != string(first.JSON()) {
		t.Errorf("all back again, but gone are %v", back.Gone)
	}
}
