package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// verb is one thing an administrative command does. These commands speak to any Kafka.
type verb struct {
	name    string
	args    string // what is expected behind the flags, as usage shows it
	least   int    // arguments
	most    int    // -1: any number
	summary string
	// flags registers the verb's own flags and returns what runs it.
	flags func(f *flag.FlagSet) func(ctx context.Context, a *admin, args []string) error
}

// simple is a verb without flags of its own.
func simple(run func(ctx context.Context, a *admin, args []string) error) func(*flag.FlagSet) func(context.Context, *admin, []string) error {
	return func(*flag.FlagSet) func(context.Context, *admin, []string) error { return run }
}

// admin is what verbs work with: a client, and a table for what they find.
type admin struct {
	*kadm.Client
	kafka *kgo.Client // the same, for requests that kadm has no method for
	table
	stdin  io.Reader
	out    io.Writer
	failed bool // a row says what went wrong
}

// table is what a verb prints: for people, or as JSON with the same names.
type table struct {
	columns []string
	rows    [][]any
}

func (t *table) head(columns ...string) { t.columns = columns }
func (t *table) row(cells ...any)       { t.rows = append(t.rows, cells) }

// result adds a row about one of several things, with its error if there is one.
func (a *admin) result(name string, err error) {
	a.columns = []string{"name", "result"}
	if err != nil {
		a.failed = true
		a.row(name, err.Error())
		return
	}
	a.row(name, "done")
}

func (t *table) print(w io.Writer, format string) error {
	if format == "json" {
		out := []map[string]any{}
		for _, r := range t.rows {
			o := map[string]any{}
			for i, c := range t.columns {
				o[c] = r[i]
			}
			out = append(out, o)
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(out)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(t.columns) > 0 {
		fmt.Fprintln(tw, strings.ToUpper(strings.ReplaceAll(strings.Join(t.columns, "\t"), "_", " ")))
	}
	for _, r := range t.rows {
		cells := make([]string, len(r))
		for i, c := range r {
			if c == nil {
				c = "-"
			}
			cells[i] = fmt.Sprint(c)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// connection is how a cluster is reached.
type connection struct {
	brokers, mechanism, user, password, ca, cert, key string
	tls                                               bool
}

func (c *connection) register(f *flag.FlagSet) {
	brokers := os.Getenv("MOLDAU_BROKERS")
	if brokers == "" {
		brokers = "127.0.0.1:9092"
	}
	f.StringVar(&c.brokers, "brokers", brokers, "`addresses` of the cluster, host:port,... (environment: MOLDAU_BROKERS)")
	f.BoolVar(&c.tls, "tls", false, "encrypt the connection")
	f.StringVar(&c.ca, "tls-ca", "", "`file` with the authorities to trust, in PEM (default: the system's)")
	f.StringVar(&c.cert, "tls-cert", "", "`file` with a certificate of one's own")
	f.StringVar(&c.key, "tls-key", "", "`file` with its key")
	f.StringVar(&c.mechanism, "sasl", "", "`mechanism`: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
	f.StringVar(&c.user, "user", "", "`name` for SASL")
	f.StringVar(&c.password, "password-file", "", "`file` with the password or the token for SASL (environment: MOLDAU_PASSWORD)")
}

func (c *connection) options() ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(strings.Split(c.brokers, ",")...), kgo.RetryTimeout(10 * time.Second), kgo.RequestRetries(3)}
	if c.tls || c.ca != "" || c.cert != "" {
		t := &tls.Config{MinVersion: tls.VersionTLS12}
		if c.ca != "" {
			pem, err := os.ReadFile(c.ca)
			if err != nil {
				return nil, err
			}
			if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("there is no certificate in %s", c.ca)
			}
		}
		if c.cert != "" {
			cert, err := tls.LoadX509KeyPair(c.cert, c.key)
			if err != nil {
				return nil, err
			}
			t.Certificates = []tls.Certificate{cert}
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	secret := os.Getenv("MOLDAU_PASSWORD")
	if c.password != "" {
		b, err := os.ReadFile(c.password)
		if err != nil {
			return nil, err
		}
		secret = strings.TrimRight(string(b), "\r\n")
	}
	switch strings.ToUpper(c.mechanism) {
	case "":
	case "PLAIN":
		opts = append(opts, kgo.SASL(plain.Auth{User: c.user, Pass: secret}.AsMechanism()))
	case "SCRAM-SHA-256":
		opts = append(opts, kgo.SASL(scram.Auth{User: c.user, Pass: secret}.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		opts = append(opts, kgo.SASL(scram.Auth{User: c.user, Pass: secret}.AsSha512Mechanism()))
	case "OAUTHBEARER":
		opts = append(opts, kgo.SASL(oauth.Auth{Token: secret}.AsMechanism()))
	default:
		return nil, usageError{fmt.Errorf("-sasl %q is no mechanism", c.mechanism)}
	}
	return opts, nil
}

// errPrinted says that the table has told what failed.
var errPrinted = errors.New("not everything was done")

// administration makes a command of verbs.
func administration(name, summary string, verbs ...verb) command {
	return command{name: name, summary: summary, verbs: verbs, run: func(ctx context.Context, args []string, std streams) error {
		if len(args) > 0 {
			for _, v := range verbs {
				if v.name == args[0] {
					return v.run(ctx, name, args[1:], std)
				}
			}
		}
		fmt.Fprintf(std.err, "usage: moldau %s VERB [flags]\n\n", name)
		for _, v := range verbs {
			fmt.Fprintf(std.err, "  %-34s %s\n", strings.TrimSpace(v.name+" "+v.args), v.summary)
		}
		fmt.Fprintf(std.err, "\nmoldau %s VERB -h describes the flags of a verb.\n", name)
		switch {
		case len(args) == 0:
			return usageError{errors.New("a verb is missing")}
		case isHelp(args[0]):
			return nil
		}
		return usageError{fmt.Errorf("unknown verb %q", args[0])}
	}}
}

func (v verb) run(ctx context.Context, name string, args []string, std streams) error {
	f := flag.NewFlagSet("moldau "+name+" "+v.name, flag.ContinueOnError)
	f.SetOutput(std.err)
	f.Usage = func() {
		fmt.Fprintf(std.err, "usage: moldau %s %s [flags]: %s\n", name, strings.TrimSpace(v.name+" "+v.args), v.summary)
		f.PrintDefaults()
	}
	var c connection
	run, format, timeout := v.register(f, &c)
	rest, err := parse(f, args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	if *format != "table" && *format != "json" {
		return usageError{fmt.Errorf("-o %q is neither table nor json", *format)}
	}
	if len(rest) < v.least || v.most >= 0 && len(rest) > v.most {
		return usageError{fmt.Errorf("%s expects %s, not %q", v.name, strings.TrimSpace("arguments "+v.args), rest)}
	}
	opts, err := c.options()
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return usageError{err}
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		return fmt.Errorf("no broker answers at %s: %w", c.brokers, err)
	}
	a := &admin{Client: kadm.NewClient(cl), kafka: cl, stdin: std.in, out: std.out}
	if err := run(ctx, a, rest); err != nil {
		return err
	}
	if err := a.print(std.out, *format); err != nil {
		return err
	}
	if a.failed {
		return errPrinted
	}
	return nil
}

// register registers all of a verb's flags.
func (v verb) register(f *flag.FlagSet, c *connection) (run func(context.Context, *admin, []string) error, format *string, timeout *time.Duration) {
	c.register(f)
	format = f.String("o", "table", "output: table or json")
	timeout = f.Duration("timeout", 30*time.Second, "how long all of it may take")
	return v.flags(f), format, timeout
}

// parse parses flags wherever they stand, and returns the other arguments.
func parse(f *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		if args = f.Args(); len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}
