package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moldau/moldau/topology"
)

func TestTopology(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, change func(s *topology.StoreDescription)) string {
		d := topology.Description{Subs: []topology.SubDescription{{Stores: []topology.StoreDescription{{Name: "counts", Kind: "key-value", Key: "string", Value: "int64"}}}}}
		change(&d.Subs[0].Stores[0])
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, d.JSON(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := file("old.json", func(*topology.StoreDescription) {})
	worse := file("worse.json", func(s *topology.StoreDescription) { s.Value = "string" })
	fine := file("fine.json", func(s *topology.StoreDescription) { s.TTL = 1000 })
	none := filepath.Join(dir, "none.json")
	if err := os.WriteFile(none, []byte("Topologies:"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"diff " + old + " " + old, 0, "stay as they are"},
		{"diff " + old + " " + fine, 0, `~ store "counts": values live 1000 ms`},
		{"diff " + old + " " + worse, 1, `! store "counts": its values were written as int64 and are now string`},
		{"diff " + old, 2, "usage"},
		{"diff " + old + " " + none, 1, "none.json: this is no description"},
		{"show " + old, 0, "Store: counts (key-value, string to int64"},
		{"show -format dot " + old, 0, "digraph"},
		{"show -format svg " + old, 2, `no format "svg"`},
		{"draw " + old, 2, "usage"},
		{"show " + filepath.Join(dir, "missing"), 1, "missing"},
		{"-h", 0, "usage"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"topology"}, strings.Fields(c.args)...), nil, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: exit code %d, %s", c.args, code, &out)
		}
	}
}
