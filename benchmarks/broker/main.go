// Command broker measures the bundled broker beside a null broker, which accepts records and acknowledges them and does
// nothing else: the floor of what a server in Go can cost on this machine. Figures of one machine mean little; the
// ratios to the null broker, taken in turn in one run, are what it prints. Apache Kafka is measured too if its address is
// in MOLDAU_KAFKA (scripts/kafka/run.sh), others with -beside.
package main

import (
	"context"
	"flag"
	"fmt"
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
		if err := runNull(ctx); err != nil {
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
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("broker", flag.ExitOnError)
	moldau := f.String("moldau", "bin/moldau", "the built command")
	megabytes := f.Int("megabytes", 200, "written in each run")
	runs := f.Int("runs", 5, "of each server, by turns; the median counts")
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
		{"null", func(ctx context.Context) (*server, error) { return startServer(ctx, "", self, "null") }},
		{"moldau os", bundled(*moldau, "os")},
		{"moldau sync", bundled(*moldau, "sync")},
	}
	for _, s := range beside {
		subjects = append(subjects, subject{s.name, func(context.Context) (*server, error) { return &s.server, nil }})
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
	return small(ctx, *moldau, subjects)
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

// throughput measures all subjects in turn, runs times.
func throughput(ctx context.Context, w *tabwriter.Writer, subjects []subject, size, records, runs, partitions int) error {
	rates, cpus := map[string][]float64{}, map[string][]float64{}
	for range runs {
		for _, s := range subjects {
			srv, err := s.start(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			before := srv.cpu()
			took, err := produce(ctx, srv.addr, size, records, partitions)
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
func small(ctx context.Context, moldau string, subjects []subject) error {
	sync, err := fdatasync(500)
	if err != nil {
		return err
	}
	fmt.Printf("\none fdatasync after 4 KiB: p50 %v\n", sync)
	for _, s := range subjects[1:] {
		srv, err := s.start(ctx)
		if err != nil {
			return err
		}
		p50, err := latency(ctx, srv.addr, 500)
		srv.stop()
		if err != nil {
			return err
		}
		fmt.Printf("%s: one record of 1 KB at a time: p50 %v, %.2f of an fdatasync\n", s.name, p50, float64(p50)/float64(sync))
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
		if _, err := produce(ctx, srv.addr, 100, 1, 1); err != nil {
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
