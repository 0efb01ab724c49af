package assign

import (
	"errors"
	"reflect"
	"testing"
)

var (
	hello = Hello{Endpoint: "host:8080", Local: []Local{{Task{0, 3}, 17}, {Task{2, 0}, -1}}}
	plan  = Plan{Members: []Share{
		{ID: "a", Endpoint: "h:1", Active: []Task{{0, 0}, {1, 2}}, Standby: []Task{{0, 1}}},
		{ID: "b"},
	}}
)

func TestWire(t *testing.T) {
	if got, err := DecodeHello(AppendHello(nil, hello)); err != nil || !reflect.DeepEqual(got, hello) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := DecodePlan(AppendPlan(nil, plan)); err != nil || !reflect.DeepEqual(got, plan) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := DecodePlan([]byte{version + 1, 0}); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
	releasing := Plan{Members: plan.Members, Releasing: []string{"a", "b"}}
	if got, err := DecodePlan(AppendPlan(nil, releasing)); err != nil || !reflect.DeepEqual(got, releasing) {
		t.Errorf("%+v, %v", got, err)
	}
	full := AppendPlan(nil, plan)
	for n := range full {
		if _, err := DecodePlan(full[:n]); err == nil {
			t.Errorf("%d of %d bytes were taken for a plan", n, len(full))
		}
	}
	if _, err := DecodePlan(append(full, 0)); err == nil {
		t.Error("a byte too many was taken for a plan")
	}
}

func FuzzHello(f *testing.F) {
	f.Add(AppendHello(nil, hello))
	f.Add([]byte{version, 0, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, src []byte) {
		h, err := DecodeHello(src)
		if err != nil {
			return
		}
		if again, err := DecodeHello(AppendHello(nil, h)); err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%+v came back as %+v, %v", h, again, err)
		}
	})
}

func FuzzPlan(f *testing.F) {
	f.Add(AppendPlan(nil, plan))
	f.Add(AppendPlan(nil, Plan{Releasing: []string{"a"}}))
	f.Add([]byte{version, 0xff, 0xff, 0x03})
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := DecodePlan(src)
		if err != nil {
			return
		}
		if again, err := DecodePlan(AppendPlan(nil, p)); err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%+v came back as %+v, %v", p, again, err)
		}
	})
}
