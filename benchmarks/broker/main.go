// Command broker measures the bundled broker beside a null broker, which accepts records and acknowledges them and does
// nothing else: the floor of what a server in Go can cost on this machine. Figures of one machine mean little; the
// ratios to the null broker, taken in turn in one run, are what it prints. Apache Kafka is measured too if its address is
// in MOLDAU_KAFKA (scripts/kafka/run.sh), with its default and with a sync of each write, others with -beside.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "null" {
		if err := runNull(ctx, len(os.Args) > 2 && os.Args[2] == "synced"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks/broker:", err)
		os.Exit(1)
	}
}

// subject is a server that is measured.
type subject struct {
	name  string
	start func(ctx context.Context) (*server, error)
	flush bool // its topics ask for a sync of each write
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("broker", flag.ExitOnError)
	moldau := f.String("moldau", "bin/moldau", "the built command")
	megabytes := f.Int("megabytes", 200, "written in each run")
	runs := f.Int("runs", 5, "of each server, in another order each time; the median counts")
	partitions := f.Int("partitions", 6, "written to")
	var beside beside
	f.Var(&beside, "beside", "`NAME=ADDRESS[,PID]` of another server that runs already; may be given several times")
	f.Parse(args)
	if addr := os.Getenv("MOLDAU_KAFKA"); addr != "" {
		if pid := os.Getenv("MOLDAU_KAFKA_PID"); pid != "" {
			addr += "," + pid
		}
		if err := beside.Set("kafka=" + addr); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	subjects := []subject{
		{name: "null", start: func(ctx context.Context) (*server, error) { return startServer(ctx, "", self, "null") }},
		{name: "moldau os", start: bundled(*moldau, "os")},
		{name: "moldau sync", start: bundled(*moldau, "sync")},
	}
	for _, s := range beside {
		running := func(context.Context) (*server, error) { return &s.server, nil }
		subjects = append(subjects, subject{name: s.name, start: running})
		if s.name == "kafka" {
			subjects = append(subjects, subject{name: "kafka, flush.messages=1", start: running, flush: true})
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "RECORDS\tSERVER\tRECORDS/S\tMB/S\tOF NULL\tCPU/RECORD")
	for _, size := range []int{1000, 100} {
		if err := throughput(ctx, w, subjects, size, *megabytes<<20/size, *runs, *partitions); err != nil {
			return err
		}
	}
	w.Flush()
	// The floor of what a synced record can take: threads that slept during the sync wake up late.
	synced := subject{name: "null, synced", start: func(ctx context.Context) (*server, error) { return startServer(ctx, "", self, "null", "synced") }}
	return small(ctx, *moldau, subjects, synced)
}

func bundled(moldau, durability string) func(context.Context) (*server, error) {
	return func(ctx context.Context) (*server, error) {
		dir, err := os.MkdirTemp("", "benchmark-broker")
		if err != nil {
			return nil, err
		}
		return startServer(ctx, dir, moldau, "broker", "-data", dir, "-listen", "127.0.0.1:0", "-durability", durability, "-log", "error")
	}
}

// throughput measures all subjects runs times, each time in another order: who ran before leaves memory that is cheap, or
// dear, to whoever comes next.
func throughput(ctx context.Context, w *tabwriter.Writer, subjects []subject, size, records, runs, partitions int) error {
	rates, cpus := map[string][]float64{}, map[string][]float64{}
	rng := rand.New(rand.NewPCG(uint64(size), 0))
	for range runs {
		for _, i := range rng.Perm(len(subjects)) {
			s := subjects[i]
			srv, err := s.start(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			before := srv.cpu()
			took, err := produce(ctx, srv.addr, size, records, partitions, s.flush)
			used := srv.cpu() - before
			srv.stop()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			rates[s.name] = append(rates[s.name], float64(records)/took.Seconds())
			cpus[s.name] = append(cpus[s.name], used.Seconds()/float64(records))
		}
	}
	floor := median(rates["null"])
	for _, s := range subjects {
		rate := median(rates[s.name])
		cpu := "-"
		if c := median(cpus[s.name]); c > 0 {
			cpu = fmt.Sprintf("%.2f µs", c*1e6)
		}
		fmt.Fprintf(w, "%d x %d B\t%s\t%.0f\t%.0f\t%.2f\t%s\n", records, size, s.name, rate, rate*float64(size)/1e6, rate/floor, cpu)
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// small measures what does not take many records.
func small(ctx context.Context, moldau string, subjects []subject, synced subject) error {
	if err := latencies(ctx, append(subjects, synced)); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "benchmark-broker")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	start := func() (*server, time.Duration, error) {
		began := time.Now()
		srv, err := startServer(ctx, "", moldau, "broker", "-data", dir, "-listen", "127.0.0.1:0", "-log", "error")
		if err != nil {
			return nil, 0, err
		}
		if _, err := produce(ctx, srv.addr, 100, 1, 1, false); err != nil {
			srv.stop()
			return nil, 0, err
		}
		return srv, time.Since(began), nil
	}
	srv, took, err := start()
	if err != nil {
		return err
	}
	fmt.Printf("moldau: start to the first record acknowledged: %v\n", took)
	srv.stop()
	if srv, took, err = start(); err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // what a start leaves behind goes
	fmt.Printf("moldau: idle, %d MiB resident; a second start took %v\n", srv.resident()>>20, took)
	if err := createTopics(ctx, srv.addr, 1000, 4); err != nil {
		return err
	}
	srv.stop()
	if srv, took, err = start(); err != nil {
		return err
	}
	fmt.Printf("moldau: start with 1,000 topics of 4 partitions to the first record: %v, %d MiB resident\n", took, srv.resident()>>20)
	srv.stop()
	return nil
}

// latencies measures the time of a record that is produced alone, and of a sync, by turns: a disk is not the same from one
// second to the next. The null broker's is what the client and the way there and back take.
func latencies(ctx context.Context, subjects []subject) error {
	var syncs []float64
	took := map[string][]float64{}
	for range 5 {
		sync, err := fdatasync(200)
		if err != nil {
			return err
		}
		syncs = append(syncs, float64(sync))
		for _, s := range subjects {
			srv, err := s.start(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			p50, err := latency(ctx, srv.addr, 200, s.flush)
			srv.stop()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			took[s.name] = append(took[s.name], float64(p50))
		}
	}
	sync := median(syncs)
	fmt.Printf("\none fdatasync after 4 KiB: p50 %v\n", time.Duration(sync))
	for _, s := range subjects {
		p50 := median(took[s.name])
		fmt.Printf("%s: one record of 1 KB at a time: p50 %v, %.2f of an fdatasync\n", s.name, time.Duration(p50), p50/sync)
	}
	return nil
}

// beside are servers that run already.
type beside []struct {
	name   string
	server server
}

func (b *beside) String() string { return "" }

func (b *beside) Set(s string) error {
	name, addr, ok := strings.Cut(s, "=")
	addr, pid, _ := strings.Cut(addr, ",")
	if !ok || addr == "" {
		return fmt.Errorf("%q is not NAME=ADDRESS[,PID]", s)
	}
	srv := server{addr: addr}
	if pid != "" {
		if _, err := fmt.Sscan(pid, &srv.pid); err != nil {
			return fmt.Errorf("%q is no process id", pid)
		}
	}
	*b = append(*b, struct {
		name   string
		server server
	}{name, srv})
	return nil
}
