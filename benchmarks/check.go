package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// runCheck reads a job's committed output and compares it with a fold of the input: the last count per key (and window),
// or number and sum of hashes of all records. A figure counts only if this passes.
func runCheck(ctx context.Context, args []string) error {
	j, err := parseJob("check", args)
	if err != nil {
		return err
	}
	keys := keysOf(j.in)
	if j.workload == "stateless" {
		return checkStateless(ctx, j, keys)
	}
	want := map[string]uint64{}
	for i := range j.records {
		key := appendKey(nil, keyIndex(i, keys))
		if j.workload == "tumbling" {
			key = binary.BigEndian.AppendUint64(key, uint64(recordTime(i)/windowSize.Milliseconds()*windowSize.Milliseconds()))
		}
		want[string(key)]++
	}
	got := map[string]uint64{}
	if err := readAll(ctx, j.broker, j.out, func(r *kgo.Record) { got[string(r.Key)] = binary.BigEndian.Uint64(r.Value) }); err != nil {
		return err
	}
	wrong := 0
	for key, n := range want {
		if got[key] != n {
			wrong++
		}
	}
	if wrong > 0 || len(got) != len(want) {
		return fmt.Errorf("%s %s: %d of %d keys have another count, %d keys in the output", j.workload, j.out, wrong, len(want), len(got))
	}
	return nil
}

func checkStateless(ctx context.Context, j job, keys int) error {
	seed := maphash.MakeSeed()
	var wantN, wantSum, gotN, gotSum uint64
	add := func(n, sum *uint64, key, value []byte) {
		*n++
		*sum += maphash.Bytes(seed, append(append([]byte(nil), key...), value...))
	}
	for i := range j.records {
		if v := appendValue(nil, i); keep(v) {
			add(&wantN, &wantSum, appendKey(nil, keyIndex(i, keys)), invert(v))
		}
	}
	if err := readAll(ctx, j.broker, j.out, func(r *kgo.Record) { add(&gotN, &gotSum, r.Key, r.Value) }); err != nil {
		return err
	}
	if gotN != wantN || gotSum != wantSum {
		return fmt.Errorf("stateless %s: %d records, want %d; hash sums equal: %t", j.out, gotN, wantN, gotSum == wantSum)
	}
	return nil
}

// readAll reads a topic's committed records to the end that it has now.
func readAll(ctx context.Context, broker, topic string, f func(*kgo.Record)) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return err
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		fetched := cl.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return fmt.Errorf("reading %s: %w", topic, err)
		}
		fetched.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				f(r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return nil
}
