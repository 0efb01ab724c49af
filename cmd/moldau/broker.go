package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/internal/broker/auth"
	"github.com/moldau/moldau/internal/broker/log"
)

// streams are where a command reads, and where it writes what it was asked for and what it has to say.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

var brokerCommand = command{name: "broker", summary: "run the bundled single-node Kafka broker", run: runBroker}

// stopWithin is how long a signal may take to end the broker.
const stopWithin = 3 * time.Second

func runBroker(ctx context.Context, args []string, std streams) error {
	o, err := brokerFlags(args, std.err)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	c := o.broker
	c.Logger = slog.New(o.handler(std.err))
	b, err := broker.Start(context.WithoutCancel(ctx), c)
	switch {
	case errors.Is(err, log.ErrLocked):
		return fmt.Errorf("%w; stop the process that uses %s, or name another directory with -data", err, c.Dir)
	case errors.Is(err, log.ErrFormat):
		return fmt.Errorf("%w; use the version of Moldau that wrote %s, or name another directory with -data", err, c.Dir)
	case errors.Is(err, log.ErrCorrupt):
		return fmt.Errorf("%w; restore %s from a copy, or start once with -allow-truncate to lose what lies behind", err, c.Dir)
	case err != nil:
		return err
	}
	if o.metrics != "" {
		addr, stop, err := serveMetrics(o.metrics, b)
		if err != nil {
			return errors.Join(err, b.Close())
		}
		defer stop()
		fmt.Fprintf(std.err, "metrics on http://%s/metrics\n", addr)
	}
	fmt.Fprintf(std.out, "broker listens on %s, data in %s\n", strings.Join(b.Addrs(), " and "), c.Dir)
	<-ctx.Done()
	stopped := make(chan error, 1)
	go func() { stopped <- b.Close() }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(stopWithin):
		return fmt.Errorf("the broker did not stop within %v; what it acknowledged is safe", stopWithin)
	}
}

// brokerOptions are what flags and file say.
type brokerOptions struct {
	broker broker.Config
	level  slog.Level
	json   bool
	// metrics is where metrics are served over HTTP; "": nowhere.
	metrics string
}

// serveMetrics serves GET /metrics until stop is called, which waits.
func serveMetrics(address string, b *broker.Broker) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, fmt.Errorf("cannot serve metrics: %w; choose another address with -metrics (port 0 takes a free one)", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		b.WriteMetrics(w) // an error is the client's, who is gone
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(l)
	}()
	return l.Addr().String(), func() {
		s.Close()
		<-done
	}, nil
}

func (o brokerOptions) handler(w io.Writer) slog.Handler {
	if o.json {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: o.level})
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: o.level})
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// brokerArgs are the flags as they are given.
type brokerArgs struct {
	broker                                   broker.Config
	durability, level, format, users, config string
	metrics                                  string
	partitions                               int
	listens, supers                          list
	certs                                    broker.TLS
	oauth                                    broker.OAuth
}

func (a *brokerArgs) register(f *flag.FlagSet) {
	c := &a.broker
	dir, err := os.UserCacheDir()
	if err == nil {
		dir = filepath.Join(dir, "moldau", "broker")
	}
	f.StringVar(&a.config, "config", "", "`file` with flags, one a line without its dash: NAME = VALUE; # begins a comment. Flags given here go before it")
	f.StringVar(&c.Dir, "data", dir, "`directory` for topics, offsets and transactions")
	f.Var(&a.listens, "listen", "`ADDRESS[,advertise=HOST:PORT][,tls|mtls|mtls-optional][,sasl=MECHANISM+...][,max-connections=N][,max-connection-creation-rate=N]` to listen on (default 127.0.0.1:9092); port 0 takes a free one; mtls demands a certificate of clients. May be given several times")
	f.BoolVar(&c.OpenToNetwork, "insecure-open-to-network", false, "allow addresses that other machines reach without TLS or without authentication: whoever reaches them may read and delete everything")
	f.StringVar(&a.certs.Cert, "tls-cert", "", "`file` with the broker's certificate, in PEM; read again when it changes")
	f.StringVar(&a.certs.Key, "tls-key", "", "`file` with its key")
	f.StringVar(&a.certs.ClientCA, "tls-client-ca", "", "`file` with the authorities of clients' certificates")
	f.StringVar(&a.certs.PrincipalRules, "tls-principal-rules", "", "`RULES` that name the user of a certificate: RULE:pattern/replacement/[LU], ... or DEFAULT, its distinguished name")
	f.StringVar(&a.users, "users", "", "`file` with a NAME:PASSWORD a line, for SASL PLAIN and SCRAM")
	f.StringVar(&a.oauth.Keys, "oauth-keys", "", "`URL` or file of the JSON Web Key Set for SASL OAUTHBEARER")
	f.StringVar(&a.oauth.Issuer, "oauth-issuer", "", "`issuer` that tokens must have")
	f.StringVar(&a.oauth.Audience, "oauth-audience", "", "`audience` that tokens must have")
	f.StringVar(&a.oauth.UserClaim, "oauth-user-claim", "", "`claim` of a token that names the user (default sub)")
	f.DurationVar(&c.MaxReauth, "max-reauth", 0, "after how long clients must authenticate again; 0: never")
	f.BoolVar(&c.ACLs, "acls", false, "enforce access control lists: what no rule allows is refused")
	f.Var(&a.supers, "super-user", "`User:NAME` that may do everything; may be given several times")
	f.BoolVar(&c.AllowIfNoACL, "allow-if-no-acl", false, "allow what no rule is about")
	f.IntVar(&c.MaxConnections, "max-connections", 10_000, "most connections at a time")
	f.IntVar(&c.MaxConnectionsPerIP, "max-connections-per-ip", 0, "most connections of one address; 0: no bound; -1: none but of addresses with a bound of their own")
	f.StringVar(&c.MaxConnectionsPerIPOverrides, "max-connections-per-ip-overrides", "", "`HOST:COUNT,...`, bounds of single addresses; names are looked up at the start")
	f.IntVar(&c.MaxConnectionCreationRate, "max-connection-creation-rate", 0, "most connections taken in a second; 0: no bound")
	f.StringVar(&a.durability, "durability", "sync", "what an acknowledged write survives: sync (power loss), interval (power loss but for the last -sync-interval), os (kill -9 only)")
	f.DurationVar(&c.SyncInterval, "sync-interval", time.Second, "time between syncs with -durability interval")
	f.IntVar(&a.partitions, "partitions", 1, "`number` of partitions of topics created without saying")
	f.BoolVar(&c.NoAutoCreate, "no-auto-create", false, "refuse topics that a client merely names")
	f.DurationVar(&c.InitialRebalanceDelay, "initial-rebalance-delay", 0, "how long a new group waits for more members")
	f.DurationVar(&c.ConsumerHeartbeatInterval, "consumer-heartbeat-interval", 5*time.Second, "time between heartbeats of members of the new consumer protocol")
	f.DurationVar(&c.StreamsHeartbeatInterval, "streams-heartbeat-interval", 5*time.Second, "time between heartbeats of members of the streams protocol")
	f.BoolVar(&c.AllowTruncate, "allow-truncate", false, "accept the loss of what lies behind a corrupt place of the log")
	f.StringVar(&a.metrics, "metrics", "", "`address` for GET /metrics over HTTP, for Prometheus, such as 127.0.0.1:9644")
	f.StringVar(&a.level, "log", "info", "what to log: debug, info, warn or error")
	f.StringVar(&a.format, "log-format", "text", "how to log: text or json")
}

func brokerFlags(args []string, out io.Writer) (brokerOptions, error) {
	f := flag.NewFlagSet("moldau broker", flag.ContinueOnError)
	f.SetOutput(out)
	var a brokerArgs
	a.register(f)
	o := brokerOptions{}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	c := &a.broker
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if a.config != "" {
		errs = append(errs, readFlags(f, a.config))
	}
	c.DefaultPartitions = int32(min(a.partitions, 1<<30))
	switch a.durability {
	case "sync":
		c.Durability = log.Sync
	case "interval":
		c.Durability = log.Interval
	case "os":
		c.Durability = log.OS
	default:
		bad("-durability %q is none of sync, interval, os", a.durability)
	}
	if err := o.level.UnmarshalText([]byte(a.level)); err != nil {
		bad("-log %q is none of debug, info, warn, error", a.level)
	}
	if o.json = a.format == "json"; !o.json && a.format != "text" {
		bad("-log-format %q is neither text nor json", a.format)
	}
	if a.partitions < 1 {
		bad("-partitions %d: at least 1", a.partitions)
		c.DefaultPartitions = 1
	}
	if o.metrics = a.metrics; o.metrics != "" {
		if host, _, err := net.SplitHostPort(o.metrics); err != nil {
			bad("-metrics %q is no host:port", o.metrics)
		} else if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && !c.OpenToNetwork {
			bad("-metrics %q can be reached from other machines, and nobody has to say who it is; use 127.0.0.1, or -insecure-open-to-network", o.metrics)
		}
	}
	if c.Dir == "" {
		bad("-data is missing: name a directory")
	}
	if len(a.listens) == 0 {
		a.listens = list{"127.0.0.1:9092"}
	}
	for _, s := range a.listens {
		l, err := parseListener(s, a.certs)
		errs = append(errs, err)
		c.Listeners = append(c.Listeners, l)
	}
	if a.oauth != (broker.OAuth{}) {
		c.OAuth = &a.oauth
	}
	c.SuperUsers = a.supers
	if a.users != "" {
		var err error
		c.Users, err = readUsers(a.users)
		errs = append(errs, err)
	}
	errs = append(errs, c.Validate())
	o.broker = *c
	return o, errors.Join(errs...)
}

// parseListener reads what -listen says.
func parseListener(s string, certs broker.TLS) (broker.Listener, error) {
	address, options, _ := strings.Cut(s, ",")
	l := broker.Listener{Address: address}
	if options == "" {
		return l, nil
	}
	var errs []error
	for o := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "advertise":
			l.Advertise = value
		case "tls", "mtls", "mtls-optional":
			t := certs
			if name == "tls" {
				t.ClientCA = ""
			} else if t.ClientCA == "" {
				errs = append(errs, fmt.Errorf("-listen %s: %s needs -tls-client-ca", s, name))
			}
			t.ClientOptional = name == "mtls-optional" && t.ClientCA != ""
			l.TLS = &t
		case "sasl":
			for m := range strings.SplitSeq(value, "+") {
				l.SASL = append(l.SASL, auth.Mechanism(strings.ToUpper(m)))
			}
		case "max-connections", "max-connection-creation-rate":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				errs = append(errs, fmt.Errorf("-listen %s: %q is not a whole number above 0", s, o))
			}
			if name == "max-connections" {
				l.MaxConnections = n
			} else {
				l.MaxConnectionCreationRate = n
			}
		default:
			errs = append(errs, fmt.Errorf("-listen %s: %q is none of advertise=HOST:PORT, tls, mtls, mtls-optional, sasl=MECHANISM, max-connections=N, max-connection-creation-rate=N", s, o))
		}
	}
	return l, errors.Join(errs...)
}

// readFlags sets the flags that a file gives and the command line does not. It reports every mistake.
func readFlags(f *flag.FlagSet, name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	given := map[string]bool{"config": true}
	f.Visit(func(fl *flag.Flag) { given[fl.Name] = true })
	var errs []error
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s:%d: %q is not NAME = VALUE", name, i+1, line))
		case f.Lookup(key) == nil || key == "config":
			errs = append(errs, fmt.Errorf("%s:%d: there is no flag %q", name, i+1, key))
		case !given[key]:
			if err := f.Set(key, value); err != nil {
				errs = append(errs, fmt.Errorf("%s:%d: %s: %w", name, i+1, key, err))
			}
		}
	}
	return errors.Join(errs...)
}

// readUsers reads names and passwords.
func readUsers(name string) (map[string]string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	users := map[string]string{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimRight(line, "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		user, password, ok := strings.Cut(line, ":")
		if !ok || user == "" || password == "" {
			return nil, fmt.Errorf("%s:%d is not NAME:PASSWORD", name, i+1)
		}
		users[user] = password
	}
	return users, nil
}
