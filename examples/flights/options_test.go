package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/cache")
	o, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.http != "127.0.0.1:8080" || o.listen != "127.0.0.1:9092" || o.guarantee != exactlyOnce || o.rate != 0 || o.exit || o.brokers != nil {
		t.Errorf("defaults %+v", o)
	}
	if filepath.Base(o.data) != "flights" || !filepath.IsAbs(o.data) {
		t.Errorf("data directory %q", o.data)
	}
	o, err = parse(strings.Fields("-brokers a:1,b:2 -data d -rate 5 -exit -guarantee at-least-once -input x.csv"), io.Discard)
	if err != nil || !slices.Equal(o.brokers, []string{"a:1", "b:2"}) || o.data != "d" || o.rate != 5 || !o.exit || o.input != "x.csv" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestWrongOptions(t *testing.T) {
	for args, want := range map[string][]string{
		"-rte 5":                         {"flag provided but not defined: -rte", "flights -help"},
		"-rate fast":                     {"invalid value \"fast\" for flag -rate"},
		"-rate -1 -guarantee twice more": {`unknown argument "more"`, `-guarantee "twice"`, "-rate -1"},
		"-http 8080":                     {`-http "8080": an address is written HOST:PORT`},
		"-brokers a":                     {`-brokers "a"`},
		"-brokers a:1 -listen b:2":       {"give one of them"},
	} {
		_, err := parse(strings.Fields(args), io.Discard)
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %v, want %q in it", args, err, part)
			}
		}
	}
	var out bytes.Buffer
	if _, err := parse([]string{"-help"}, &out); !errors.Is(err, flag.ErrHelp) || !strings.Contains(out.String(), "-guarantee") {
		t.Errorf("help: %v, %q", err, out.String())
	}
}
