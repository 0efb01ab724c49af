package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var logCommand = administration("log", "logs of partitions: sizes, records, trim",
	verb{"size", "[TOPIC...]", 0, -1, "bytes on disk, by topic and partition", simple(func(ctx context.Context, a *admin, args []string) error {
		var only kadm.TopicsSet
		if len(args) > 0 {
			topics, err := a.ListTopicsWithInternal(ctx, args...)
			if err != nil {
				return err
			}
			only = topics.TopicsSet()
		}
		dirs, err := a.DescribeAllLogDirs(ctx, only)
		if err != nil {
			return err
		}
		a.head("broker", "topic", "partition", "bytes", "directory")
		for _, d := range dirs.Sorted() {
			if d.Err != nil {
				return fmt.Errorf("directory %s of broker %d: %w", d.Dir, d.Broker, d.Err)
			}
			for _, p := range d.Topics.Sorted() {
				a.row(p.Broker, p.Topic, p.Partition, p.Size, p.Dir)
			}
		}
		return nil
	})},
	verb{"records", "TOPIC", 1, 1, "the records of a topic, those that are there now", func(f *flag.FlagSet) func(context.Context, *admin, []string) error {
		partition := f.Int("partition", -1, "`number` of the one partition (default: all)")
		from := f.Int64("from", 0, "`offset` to begin at; negative: so many before the end")
		most := f.Int("most", 100, "`number` of records to show")
		uncommitted := f.Bool("uncommitted", false, "those of open and aborted transactions, too")
		return func(ctx context.Context, a *admin, args []string) error {
			return showRecords(ctx, a, args[0], int32(*partition), *from, *most, *uncommitted)
		}
	}},
	verb{"trim", "TOPIC PARTITION OFFSET", 3, 3, "deletes what lies before an offset", simple(func(ctx context.Context, a *admin, args []string) error {
		var partition int32
		var offset int64
		if _, err := fmt.Sscan(args[1]+" "+args[2], &partition, &offset); err != nil {
			return usageError{errors.New("partition and offset are numbers")}
		}
		var offsets kadm.Offsets
		offsets.AddOffset(args[0], partition, offset, -1)
		trimmed, err := a.DeleteRecords(ctx, offsets)
		if err != nil {
			return err
		}
		a.head("topic", "partition", "start")
		for _, r := range trimmed.Sorted() {
			if r.Err != nil {
				return fmt.Errorf("topic %s partition %d: %w", r.Topic, r.Partition, r.Err)
			}
			a.row(r.Topic, r.Partition, r.LowWatermark)
		}
		return nil
	})},
)

// showRecords reads up to the ends that the partitions have now.
func showRecords(ctx context.Context, a *admin, topic string, only int32, from int64, most int, uncommitted bool) error {
	starts, err := a.ListStartOffsets(ctx, topic)
	if err != nil {
		return err
	}
	list := a.ListCommittedOffsets
	if uncommitted {
		list = a.ListEndOffsets
	}
	ends, err := list(ctx, topic)
	if err != nil {
		return err
	}
	if err := ends.Error(); err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	begin, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, end := range ends[topic] {
		start, _ := starts.Lookup(topic, p)
		at := max(from, start.Offset)
		if from < 0 {
			at = max(end.Offset+from, start.Offset)
		}
		if at < end.Offset && (only < 0 || only == p) {
			begin[p], left[p] = kgo.NewOffset().At(at), end.Offset
		}
	}
	a.head("partition", "offset", "time", "key", "value", "headers")
	if len(begin) == 0 {
		return nil
	}
	isolation := kgo.ReadCommitted()
	if uncommitted {
		isolation = kgo.ReadUncommitted()
	}
	opts := append(a.kafka.Opts(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: begin}), kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords())
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for len(left) > 0 && len(a.rows) < most {
		fetches := cl.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			return fmt.Errorf("topic %s partition %d: %w", e.Topic, e.Partition, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end, ok := left[r.Partition]
			if ok && r.Offset+1 >= end {
				delete(left, r.Partition)
			}
			if !ok || r.Offset >= end || r.Attrs.IsControl() || len(a.rows) >= most {
				return
			}
			a.row(r.Partition, r.Offset, r.Timestamp.UTC().Format(time.RFC3339Nano), text(r.Key), text(r.Value), headers(r.Headers))
		})
	}
	return nil
}

// text is bytes of a record: quoted in a table, and null as nothing; in JSON a string, or, if it is not UTF-8, {"base64": ...}.
type text []byte

func (t text) String() string {
	if t == nil {
		return "-"
	}
	return strconv.Quote(string(t))
}

func (t text) MarshalJSON() ([]byte, error) {
	switch {
	case t == nil:
		return []byte("null"), nil
	case utf8.Valid(t):
		return json.Marshal(string(t))
	}
	return json.Marshal(map[string][]byte{"base64": t})
}

// headers are those of a record, in their order.
type headers []kgo.RecordHeader

func (h headers) String() string {
	all := make([]string, len(h))
	for i, one := range h {
		all[i] = one.Key + "=" + text(one.Value).String()
	}
	return strings.Join(all, " ")
}

func (h headers) MarshalJSON() ([]byte, error) {
	type header struct {
		Key   string `json:"key"`
		Value text   `json:"value"`
	}
	all := make([]header, len(h))
	for i, one := range h {
		all[i] = header{one.Key, one.Value}
	}
	return json.Marshal(all)
}
