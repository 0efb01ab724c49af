package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// options are the command line.
type options struct {
	input     string
	data      string
	http      string
	listen    string
	brokers   []string
	guarantee string
	rate      int
	exit      bool
}

const (
	exactlyOnce = "exactly-once"
	atLeastOnce = "at-least-once"
)

// parse reads the command line. Its error names every mistake; flag.ErrHelp says that help was asked for and given.
func parse(args []string, out io.Writer) (options, error) {
	var o options
	var brokers string
	f := flag.NewFlagSet("flights", flag.ContinueOnError)
	f.SetOutput(io.Discard) // mistakes are reported once, by main
	f.StringVar(&o.input, "input", "", "CSV of flights, plain or .gz; default: January 2001, which comes with the program")
	f.StringVar(&o.data, "data", "", "directory for broker and state; default: moldau/flights under your cache folder")
	f.StringVar(&o.http, "http", "127.0.0.1:8080", "where page and API listen; port 0 picks a free one")
	f.StringVar(&o.listen, "listen", "127.0.0.1:9092", "where the bundled broker listens for Kafka clients; port 0 picks a free one")
	f.StringVar(&brokers, "brokers", "", "comma-separated addresses of a Kafka cluster, instead of the bundled broker")
	f.StringVar(&o.guarantee, "guarantee", exactlyOnce, exactlyOnce+" or "+atLeastOnce)
	f.IntVar(&o.rate, "rate", 0, "records per second to publish; 0: no limit")
	f.BoolVar(&o.exit, "exit", false, "stop once all input has been processed and committed")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(out, "flights plays a month of US flights through a Moldau topology.")
		f.SetOutput(out)
		f.PrintDefaults()
		return o, err
	}
	if err != nil {
		return o, fmt.Errorf("%w; flights -help lists the flags", err)
	}
	for _, b := range strings.Split(brokers, ",") {
		if b = strings.TrimSpace(b); b != "" {
			o.brokers = append(o.brokers, b)
		}
	}
	mistakes := []error{o.mistakes(f)}
	if o.data == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("there is no cache folder for the data (%w); name a directory with -data", err))
		}
		o.data = filepath.Join(cache, "moldau", "flights")
	}
	return o, errors.Join(mistakes...)
}

func (o options) mistakes(f *flag.FlagSet) error {
	var all []error
	note := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	if f.NArg() > 0 {
		note("unknown argument %q; flights -help lists the flags", f.Arg(0))
	}
	if o.guarantee != exactlyOnce && o.guarantee != atLeastOnce {
		note("-guarantee %q: it is %s or %s", o.guarantee, exactlyOnce, atLeastOnce)
	}
	if o.rate < 0 {
		note("-rate %d: it is a number of records per second, or 0 for no limit", o.rate)
	}
	addresses := map[string][]string{"http": {o.http}, "listen": {o.listen}, "brokers": o.brokers}
	for _, name := range []string{"http", "listen", "brokers"} {
		for _, a := range addresses[name] {
			if _, _, err := net.SplitHostPort(a); err != nil {
				note("-%s %q: an address is written HOST:PORT", name, a)
			}
		}
	}
	f.Visit(func(g *flag.Flag) {
		if g.Name == "listen" && len(o.brokers) > 0 {
			note("-listen is for the bundled broker, and -brokers replaces it; give one of them")
		}
	})
	return errors.Join(all...)
}
