package topology_test

import (
	"reflect"
	"testing"

	"github.com/moldau/moldau/topology"
)

// FuzzDescription: what stands in the topic of an application's topologies is drawn and compared, whatever it is, or refused.
func FuzzDescription(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"subs":[{"nodes":[{"kind":"count","parents":["x"]}],"stores":[{"name":"s","changelog":"c"}]}],"topics":[{"name":"t","kind":"external"}],"globals":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := topology.ParseDescription(b)
		if err != nil {
			return
		}
		for _, name := range topology.Formats() {
			if _, err := d.Format(name); err != nil {
				t.Fatal(err)
			}
		}
		again, err := topology.ParseDescription(d.JSON())
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := topology.ParseDescription(again.JSON()); err != nil || !reflect.DeepEqual(twice, again) {
			t.Fatalf("%+v became %+v, %v", again, twice, err)
		}
		topology.Diff(topology.Description{}, d)
		topology.Diff(d, again)
	})
}
