package moldau

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/topology"
)

// ErrActive: processes of the application run, or ran a moment ago and the group has not given them up.
var ErrActive = errors.New("the application is running")

// ResetTo is a place in the input. The zero value is the start of each topic.
type ResetTo struct {
	kind resetKind
	at   int64
}

type resetKind int

const (
	toEarliest resetKind = iota
	toLatest
	toOffset
	toTime
)

// ResetToEarliest, ResetToLatest, ResetToOffset and ResetToTime are where reading begins again: at the start of each partition, at its
// end, at an offset, at the first record that is not older than a time. An offset outside of the log becomes its start or end.
func ResetToEarliest() ResetTo        { return ResetTo{} }
func ResetToLatest() ResetTo          { return ResetTo{kind: toLatest} }
func ResetToOffset(n int64) ResetTo   { return ResetTo{toOffset, n} }
func ResetToTime(t time.Time) ResetTo { return ResetTo{toTime, t.UnixMilli()} }

// ResetConfig says what ResetApp does. The zero value takes an application with the bundled broker back to the start of its input.
type ResetConfig struct {
	// Brokers, Kafka, StateDir and Logger are those of Config.
	Brokers  []string
	Kafka    []kgo.Opt
	StateDir string
	Logger   *slog.Logger
	// To is where reading begins again in the source topics.
	To ResetTo
	// Inputs are the source topics. None: those that the application has recorded, and those that it has committed positions for.
	Inputs []string
	// DryRun finds out what there is to do, and does nothing.
	DryRun bool
	// Force throws members out of the group that are still in it, such as those of processes that were killed.
	Force bool

	fs vfs.FS
}

// ResetReport is what ResetApp has done, or would do.
type ResetReport struct {
	Offsets  []ResetOffset // by topic and partition
	Deleted  []string      // internal topics
	StateDir string        // whose tasks' state is gone; "": there is none on this machine
}

// ResetOffset is where reading begins in a partition.
type ResetOffset struct {
	Topic     string
	Partition int32
	At        int64
}

func (r ResetReport) String() string {
	var b strings.Builder
	for _, o := range r.Offsets {
		fmt.Fprintf(&b, "topic %s, partition %d: from offset %d\n", o.Topic, o.Partition, o.At)
	}
	for _, t := range r.Deleted {
		fmt.Fprintf(&b, "topic %s: deleted\n", t)
	}
	if r.StateDir != "" {
		fmt.Fprintf(&b, "local state under %s: deleted\n", r.StateDir)
	}
	return b.String()
}

// ResetApp makes an application begin anew, as kafka-streams-application-reset does: its positions in source topics are set, its
// internal topics and its state on this machine are deleted, output topics stay as they are. It refuses while the application
// runs. State on other machines belongs to topics that are no more and is not used again. A reset that was broken off can be
// run again.
//
// Which topics are internal is known from the record of the topology; without one, they are those named <application>-...-changelog,
// -repartition and so on, unless another application's name begins alike.
func ResetApp(ctx context.Context, app string, cfg ResetConfig) (report ResetReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("moldau: resetting application %q: %w", app, err)
		}
	}()
	if err := topology.CheckName(app); err != nil {
		return report, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c := Config{Brokers: cfg.Brokers, Kafka: cfg.Kafka, StateDir: cfg.StateDir, Logger: cfg.Logger, fs: cfg.fs}
	if err := c.Validate(); err != nil {
		return report, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c = c.withDefaults()
	if c.StateDir == "" {
		if c.StateDir, err = stateDir(app); err != nil {
			return report, err
		}
	}
	_, missing := c.fs.Stat(c.StateDir)
	if missing != nil && !errors.Is(missing, os.ErrNotExist) {
		return report, missing
	}
	bundled := len(c.Brokers) == 0
	if missing != nil && bundled {
		return report, fmt.Errorf("%w: there is no state directory %s, in which the bundled broker would have its data; name the right one, or a cluster", ErrConfig, c.StateDir)
	}
	r := resetter{app: app, cfg: cfg}
	if !bundled {
		if err := r.open(append([]kgo.Opt{kgo.SeedBrokers(c.Brokers...)}, c.Kafka...)); err != nil {
			return report, err
		}
		defer r.cl.Close()
		if err := r.idle(ctx); err != nil { // rather than that a directory is locked
			return report, err
		}
	}
	var identity *worker.Identity
	if missing == nil {
		if identity, err = worker.OpenIdentity(c.fs, c.StateDir, app); err != nil {
			return report, err
		}
		defer identity.Close()
		report.StateDir = c.StateDir
	}
	if bundled {
		b, err := broker.Start(context.WithoutCancel(ctx), c.brokerConfig(c.fs.PathJoin(c.StateDir, "broker")))
		if err != nil {
			return report, err
		}
		defer b.Close()
		if err := r.open([]kgo.Opt{kgo.SeedBrokers("in-process:9092"), kgo.Dialer(b.Dial)}); err != nil {
			return report, err
		}
		defer r.cl.Close()
		r.cfg.Force = true // the directory is locked: whoever is still in the group is no more
		if err := r.idle(ctx); err != nil {
			return report, err
		}
	}
	if err := r.plan(ctx, &report); err != nil || cfg.DryRun {
		return report, err
	}
	if err := r.carryOut(ctx, report); err != nil {
		return report, err
	}
	if identity == nil {
		return report, nil
	}
	if err := c.fs.RemoveAll(c.fs.PathJoin(c.StateDir, "tasks")); err != nil {
		return report, err
	}
	return report, identity.Forget()
}

// plan finds the topics and the offsets.
func (r *resetter) plan(ctx context.Context, report *ResetReport) error {
	all, err := r.topics(ctx)
	if err != nil {
		return err
	}
	record := worker.DeployedTopic(r.app)
	var known topology.Description
	if _, ok := all[record]; ok {
		if known, err = r.recorded(ctx, record); err != nil {
			return fmt.Errorf("reading topic %q: %w", record, err)
		}
	}
	internal := map[string]bool{}
	for name := range all {
		if r.internal(name, known, all) {
			internal[name] = true
		}
	}
	inputs := slices.Clone(r.cfg.Inputs)
	if len(inputs) == 0 {
		globals := map[string]bool{}
		for _, g := range known.Globals {
			globals[g.Topic] = true
		}
		for _, t := range known.Topics {
			switch {
			case t.Kind == topology.External && t.Read && !globals[t.Name]:
				inputs = append(inputs, t.Name)
			case t.Kind == topology.Pattern:
				pattern, err := topology.CompilePattern(t.Name)
				if err != nil {
					return fmt.Errorf("topic %q holds a pattern that cannot be read: %w", record, err)
				}
				for name := range all {
					if pattern.MatchString(name) && !internal[name] && !slices.Contains(inputs, name) {
						inputs = append(inputs, name)
					}
				}
			}
		}
		committed, err := r.committed(ctx)
		if err != nil {
			return err
		}
		for _, name := range committed {
			if _, exists := all[name]; exists && !internal[name] && !slices.Contains(inputs, name) {
				inputs = append(inputs, name)
			}
		}
	}
	slices.Sort(inputs)
	for _, name := range slices.Compact(inputs) {
		if all[name] == 0 {
			return fmt.Errorf("source topic %q does not exist: %w", name, ErrMissingTopic)
		}
		offsets, err := r.offsets(ctx, name, all[name])
		if err != nil {
			return err
		}
		for p, at := range offsets {
			report.Offsets = append(report.Offsets, ResetOffset{name, int32(p), at})
		}
	}
	// The record goes last: what is left of a reset that was broken off is found by it.
	report.Deleted = slices.Sorted(maps.Keys(internal))
	if i := slices.Index(report.Deleted, record); i >= 0 {
		report.Deleted = append(slices.Delete(report.Deleted, i, i+1), record)
	}
	return nil
}

// endings are how names of internal topics end, here and in Kafka Streams.
var endings = [...]string{"-changelog", "-repartition", "-topology", "-subscription-registration-topic", "-subscription-response-topic"}

// internal says whether a topic is the application's own.
func (r *resetter) internal(name string, known topology.Description, all map[string]int32) bool {
	rest, ok := strings.CutPrefix(name, r.app+"-")
	if !ok {
		return false
	}
	for _, t := range known.Topics {
		if t.Kind == topology.Repartition && t.Name == rest {
			return true
		}
	}
	for _, s := range known.Subs {
		for _, st := range s.Stores {
			if st.Changelog == rest && !st.Source {
				return true
			}
		}
	}
	if slices.ContainsFunc(known.Gone, func(st topology.StoreDescription) bool { return st.Changelog == rest }) {
		return true
	}
	if !slices.ContainsFunc(endings[:], func(end string) bool { return strings.HasSuffix(name, end) }) {
		return false
	}
	for other := range all { // of an application whose name begins alike?
		app, ok := strings.CutSuffix(other, "-topology")
		if ok && strings.HasPrefix(app, r.app+"-") && strings.HasPrefix(name, app+"-") {
			return false
		}
	}
	return true
}
