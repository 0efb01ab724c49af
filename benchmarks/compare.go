package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// row is one line of the comparison: a program doing a workload under a guarantee.
type row struct {
	program, workload string
	keys              int
	exactlyOnce       bool
}

func (r row) String() string {
	guarantee := "at least once"
	if r.exactlyOnce {
		guarantee = "exactly once"
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s", r.workload, short(r.keys), guarantee, r.program)
}

func short(n int) string {
	if n >= 1_000_000 {
		return strconv.Itoa(n/1_000_000) + "M"
	}
	return strconv.Itoa(n/1000) + "k"
}

func inputTopic(keys int) string { return "in" + short(keys) }

// keysOf is the inverse of inputTopic.
func keysOf(topic string) int {
	s := strings.TrimPrefix(topic, "in")
	unit := 1000
	if strings.HasSuffix(s, "M") {
		unit = 1_000_000
	}
	n, err := strconv.Atoi(s[:len(s)-1])
	if err != nil {
		panic("benchmarks: not an input topic: " + topic)
	}
	return n * unit
}

// runCompare measures everything, alternating the programs, and prints medians and ratios.
func runCompare(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	runs := fs.Int("runs", 5, "runs of each row; the median counts")
	records := fs.Int("records", 5_000_000, "input records a run")
	workloads := fs.String("workloads", "stateless,count,tumbling", "what to measure")
	keys := fs.String("keys", "100k,1M", "distinct keys of count; stateless and tumbling use the first")
	address := fs.String("broker", "", "measure against this broker instead of a bundled one of its own")
	starts := fs.Bool("starts", true, "measure starts and restarts too")
	profiles := fs.String("profiles", "", "write a CPU profile of every run into this directory")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "moldau-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{self: self, dir: dir, records: *records, profiles: *profiles}
	if b.address = *address; b.address == "" {
		if err := b.startBroker(ctx); err != nil {
			return err
		}
		defer b.stopBroker()
	}
	var keyCounts []int
	for _, k := range strings.Split(*keys, ",") {
		keyCounts = append(keyCounts, keysOf("in"+k))
	}
	for _, k := range keyCounts {
		if _, err := b.run(ctx, "load", "-in", inputTopic(k), "-keys", strconv.Itoa(k), "-records", strconv.Itoa(*records)); err != nil {
			return err
		}
	}
	var rows []row
	for _, w := range strings.Split(*workloads, ",") {
		counts := keyCounts
		if w != "count" {
			counts = keyCounts[:1]
		}
		for _, k := range counts {
			for _, exactlyOnce := range []bool{false, true} {
				for _, program := range []string{"loop", "moldau"} {
					rows = append(rows, row{program, w, k, exactlyOnce})
				}
			}
		}
	}
	got := map[row][]figures{}
	for i := range *runs {
		for _, r := range rows {
			f, err := b.measure(ctx, r, i)
			if err != nil {
				return fmt.Errorf("%s: %w", strings.ReplaceAll(r.String(), "\t", " "), err)
			}
			got[r] = append(got[r], f)
			fmt.Fprintf(os.Stderr, "run %d of %d: %s: %.2f us\n", i+1, *runs, strings.ReplaceAll(r.String(), "\t", " "), f.CPU)
		}
	}
	printRows(rows, got)
	if *starts {
		return b.measureStarts(ctx, *runs)
	}
	return nil
}

// bench is one run of the comparison: its broker and where things lie.
type bench struct {
	self, dir, address string
	profiles           string
	records            int
	broker             *exec.Cmd
}

// startBroker builds the command that users run and starts its broker on a free port.
func (b *bench) startBroker(ctx context.Context) error {
	moldau := filepath.Join(b.dir, "moldau")
	build := exec.CommandContext(ctx, "go", "build", "-o", moldau, "github.com/moldau/moldau/cmd/moldau")
	build.Env = append(os.Environ(), "GOTOOLCHAIN=auto")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the broker: %w\n%s", err, out)
	}
	b.broker = exec.CommandContext(ctx, moldau, "broker", "-data", filepath.Join(b.dir, "broker"), "-listen", "127.0.0.1:0", "-log", "error")
	b.broker.Cancel = func() error { return b.broker.Process.Signal(os.Interrupt) }
	b.broker.Stderr = os.Stderr
	out, err := b.broker.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.broker.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the broker did not start: %w", err)
	}
	if _, err := fmt.Sscanf(strings.ReplaceAll(line, ",", " "), "broker listens on %s", &b.address); err != nil {
		return fmt.Errorf("the broker said %q: %w", line, err)
	}
	return nil
}

func (b *bench) stopBroker() {
	_ = b.broker.Process.Signal(os.Interrupt)
	_ = b.broker.Wait()
}

// run starts this program in a role and returns what it printed. GOGC=400 suits both programs: their live heap is small.
func (b *bench) run(ctx context.Context, role string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, b.self, append([]string{role, "-broker", b.address}, args...)...)
	cmd.Env = append(os.Environ(), "GOGC=400")
	cmd.Stderr = os.Stderr
	return cmd.Output()
}

func (b *bench) measure(ctx context.Context, r row, i int) (figures, error) {
	name := fmt.Sprintf("%s-%s-%s-%t-%d", r.program, r.workload, short(r.keys), r.exactlyOnce, i)
	args := []string{"-workload", r.workload, "-in", inputTopic(r.keys), "-out", name + "-out", "-app", name,
		"-records", strconv.Itoa(b.records), "-state", filepath.Join(b.dir, name), "-exactly-once=" + strconv.FormatBool(r.exactlyOnce)}
	if b.broker != nil {
		args = append(args, "-broker-pid", strconv.Itoa(b.broker.Process.Pid))
	}
	topics := []string{name + "-out"}
	if r.program == "loop" {
		topics = append(topics, job{app: name}.changelog())
	}
	if err := createTopics(ctx, b.address, topics...); err != nil {
		return figures{}, err
	}
	var profile []string
	if b.profiles != "" {
		profile = []string{"-profile", filepath.Join(b.profiles, name+".prof")}
	}
	out, err := b.run(ctx, r.program, slices.Concat(args, profile)...)
	if err != nil {
		return figures{}, err
	}
	var f figures
	if err := json.Unmarshal(bytes.TrimSpace(out), &f); err != nil {
		return f, fmt.Errorf("reading its figures from %q: %w", out, err)
	}
	if _, err := b.run(ctx, "check", args...); err != nil {
		return f, err
	}
	return f, b.tidy(ctx, name)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func column(fs []figures, f func(figures) float64) float64 {
	values := make([]float64, len(fs))
	for i := range fs {
		values[i] = f(fs[i])
	}
	return median(values)
}

// printRows prints medians, and for every Moldau row the ratio of its CPU time to the loop's and to its own at least once.
// A ratio is the median of the ratios of neighbouring runs, which the machine's mood disturbs least.
func printRows(rows []row, got map[row][]figures) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "workload\tkeys\tguarantee\tprogram\tCPU us/rec\tbroker us/rec\trec/s\tRSS MB\tstate B/key\tof the loop\tof at least once")
	ratio := func(a, b []figures) string {
		if len(a) == 0 || len(b) == 0 {
			return ""
		}
		values := make([]float64, len(a))
		for i := range a {
			values[i] = a[i].CPU / b[i].CPU
		}
		return fmt.Sprintf("%.2f", median(values))
	}
	for _, r := range rows {
		fs := got[r]
		ofLoop, ofAtLeastOnce := "", ""
		if r.program == "moldau" {
			ofLoop = ratio(fs, got[row{"loop", r.workload, r.keys, r.exactlyOnce}])
		}
		if r.exactlyOnce {
			ofAtLeastOnce = ratio(fs, got[row{r.program, r.workload, r.keys, false}])
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%s\t%s\n", r, column(fs, func(f figures) float64 { return f.CPU }),
			column(fs, func(f figures) float64 { return f.BrokerCPU }), column(fs, func(f figures) float64 { return f.Rate }),
			column(fs, func(f figures) float64 { return float64(f.RSS) }), column(fs, func(f figures) float64 { return f.StateBytes }), ofLoop, ofAtLeastOnce)
	}
	w.Flush()
}
