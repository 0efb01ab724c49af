package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func values(prefix string, n int) (vs []string) {
	for i := range n {
		vs = append(vs, fmt.Sprintf("%s%d", prefix, i))
	}
	return vs
}

func TestTransactionsCommitAndAbort(t *testing.T) {
	b := start(t, partitions(2))
	ctx := testContext(t)
	p := client(t, b, kgo.TransactionalID("id"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	txn := func(prefix string, end kgo.TransactionEndTry) {
		t.Helper()
		if err := p.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i, v := range values(prefix, 10) {
			p.Produce(ctx, &kgo.Record{Topic: "t", Partition: int32(i % 2), Value: []byte(v)}, nil)
		}
		if err := errors.Join(p.Flush(ctx), p.AbortBufferedRecords(ctx), p.EndTransaction(ctx, end)); err != nil {
			t.Fatal(err)
		}
	}
	txn("a", kgo.TryCommit)
	txn("b", kgo.TryAbort)
	txn("c", kgo.TryCommit)
	got := append(read(t, b, "t", 0), read(t, b, "t", 1)...)
	slices.Sort(got)
	if want := append(values("a", 10), values("c", 10)...); !slices.Equal(got, want) {
		t.Errorf("read committed: %q", got)
	}
	all := append(readAs(t, b, "t", 0, kgo.ReadUncommitted()), readAs(t, b, "t", 1, kgo.ReadUncommitted())...)
	if len(all) != 30 {
		t.Errorf("read uncommitted: %d records", len(all))
	}
}

// A second instance of a producer ends the transaction of the first by abort; the first can do nothing any more, in any
// version of the protocol.
func TestZombieIsFenced(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	pid, epoch := r.initProducer("id", time.Minute)
	wantCode(t, "zombie's record", r.produce(12, "id", "t", 0, batch{pid, epoch, 0, true, []string{"zombie"}}).ErrorCode, nil)

	pid2, epoch2 := r.initProducer("id", time.Minute)
	if pid2 != pid || epoch2 <= epoch {
		t.Fatalf("producer %d epoch %d after %d epoch %d", pid2, epoch2, pid, epoch)
	}
	wantCode(t, "record", r.produce(12, "id", "t", 0, batch{pid2, epoch2, 0, true, []string{"new"}}).ErrorCode, nil)

	for version, want := range map[int16]*kerr.Error{12: kerr.InvalidProducerEpoch, 11: kerr.InvalidProducerEpoch, 10: kerr.InvalidProducerEpoch} {
		wantCode(t, fmt.Sprintf("produce version %d", version), r.produce(version, "id", "t", 0, batch{pid, epoch, 1, true, []string{"z"}}).ErrorCode, want)
	}
	for version, want := range map[int16]*kerr.Error{5: kerr.ProducerFenced, 4: kerr.ProducerFenced, 1: kerr.InvalidProducerEpoch} {
		wantCode(t, fmt.Sprintf("end version %d", version), r.endTxn(version, "id", pid, epoch, true).ErrorCode, want)
	}
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch = "id", pid, epoch
	add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "t", Partitions: []int32{0}}}
	wantCode(t, "add partitions", ask[*kmsg.AddPartitionsToTxnResponse](r, 3, add).Topics[0].Partitions[0].ErrorCode, kerr.ProducerFenced)
	wantCode(t, "add partitions version 1", ask[*kmsg.AddPartitionsToTxnResponse](r, 1, add).Topics[0].Partitions[0].ErrorCode, kerr.InvalidProducerEpoch)
	off := kmsg.NewPtrTxnOffsetCommitRequest()
	off.TransactionalID, off.ProducerID, off.ProducerEpoch, off.Group, off.Generation = "id", pid, epoch, "g", -1
	off.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 1}}}}
	wantCode(t, "offsets", ask[*kmsg.TxnOffsetCommitResponse](r, 5, off).Topics[0].Partitions[0].ErrorCode, kerr.InvalidProducerEpoch)
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.TransactionTimeoutMillis, init.ProducerID, init.ProducerEpoch = ptr("id"), 1000, pid, epoch
	wantCode(t, "init", ask[*kmsg.InitProducerIDResponse](r, 4, init).ErrorCode, kerr.ProducerFenced)
	wantCode(t, "init version 3", ask[*kmsg.InitProducerIDResponse](r, 3, init).ErrorCode, kerr.InvalidProducerEpoch)

	wantCode(t, "commit", r.endTxn(5, "id", pid2, epoch2, true).ErrorCode, nil)
	if got := read(t, b, "t", 0); !slices.Equal(got, []string{"new"}) {
		t.Errorf("read committed: %q", got)
	}
}

// Under version 2 what is still on its way when a transaction ends cannot touch the next one.
func TestDelayedRequestsOfAnEarlierTransaction(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	pid, e0 := r.initProducer("id", time.Minute)
	r.produce(12, "id", "t", 0, batch{pid, e0, 0, true, []string{"first"}})
	end := r.endTxn(5, "id", pid, e0, true)
	e1 := end.ProducerEpoch
	if e1 != e0+1 {
		t.Fatalf("epoch %d after %d", e1, e0)
	}
	wantCode(t, "a batch behind its marker", r.produce(12, "id", "t", 0, batch{pid, e0, 1, true, []string{"late"}}).ErrorCode, kerr.InvalidProducerEpoch)
	if again := r.endTxn(5, "id", pid, e0, true); again.ErrorCode != 0 || again.ProducerEpoch != e1 {
		t.Errorf("commit repeated: %v, epoch %d", kerr.ErrorForCode(again.ErrorCode), again.ProducerEpoch)
	}
	wantCode(t, "abort of what is committed", r.endTxn(5, "id", pid, e0, false).ErrorCode, kerr.InvalidTxnState)

	r.produce(12, "id", "t", 0, batch{pid, e1, 0, true, []string{"second"}})
	wantCode(t, "delayed commit", r.endTxn(5, "id", pid, e0, true).ErrorCode, kerr.ProducerFenced)
	wantCode(t, "delayed abort", r.endTxn(5, "id", pid, e0, false).ErrorCode, kerr.ProducerFenced)
	wantCode(t, "commit", r.endTxn(5, "id", pid, e1, true).ErrorCode, nil)
	if got := read(t, b, "t", 0); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("read committed: %q", got)
	}
}

// Clients of version 1 add partitions first; what they have not added is refused.
func TestVersion1(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("t", 2)
	pid, epoch := r.initProducer("id", time.Minute)
	data := func(seq int32, v string) batch { return batch{pid, epoch, seq, true, []string{v}} }
	wantCode(t, "not added, version 10", r.produce(10, "id", "t", 0, data(0, "x")).ErrorCode, kerr.InvalidTxnState)
	wantCode(t, "not added, version 11", r.produce(11, "id", "t", 0, data(0, "x")).ErrorCode, kerr.TransactionAbortable)
	wantCode(t, "end of nothing", r.endTxn(3, "id", pid, epoch, true).ErrorCode, kerr.InvalidTxnState)

	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch = "id", pid, epoch
	add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "t", Partitions: []int32{0, 9}}}
	ps := ask[*kmsg.AddPartitionsToTxnResponse](r, 3, add).Topics[0].Partitions
	wantCode(t, "all or none", ps[0].ErrorCode, kerr.OperationNotAttempted)
	wantCode(t, "missing", ps[1].ErrorCode, kerr.UnknownTopicOrPartition)
	add.Topics[0].Partitions = []int32{0}
	wantCode(t, "add", ask[*kmsg.AddPartitionsToTxnResponse](r, 3, add).Topics[0].Partitions[0].ErrorCode, nil)
	wantCode(t, "added", r.produce(10, "id", "t", 0, data(0, "a")).ErrorCode, nil)
	wantCode(t, "other partition", r.produce(10, "id", "t", 1, data(0, "a")).ErrorCode, kerr.InvalidTxnState)

	off := kmsg.NewPtrTxnOffsetCommitRequest()
	off.TransactionalID, off.ProducerID, off.ProducerEpoch, off.Group, off.Generation = "id", pid, epoch, "g", -1
	off.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 7}}}}
	wantCode(t, "group not added", ask[*kmsg.TxnOffsetCommitResponse](r, 3, off).Topics[0].Partitions[0].ErrorCode, kerr.InvalidTxnState)
	grp := kmsg.NewPtrAddOffsetsToTxnRequest()
	grp.TransactionalID, grp.ProducerID, grp.ProducerEpoch, grp.Group = "id", pid, epoch, "g"
	wantCode(t, "add group", ask[*kmsg.AddOffsetsToTxnResponse](r, 3, grp).ErrorCode, nil)
	wantCode(t, "offsets", ask[*kmsg.TxnOffsetCommitResponse](r, 3, off).Topics[0].Partitions[0].ErrorCode, nil)
	wantCode(t, "commit", r.endTxn(3, "id", pid, epoch, true).ErrorCode, nil)
	wantCode(t, "commit again", r.endTxn(3, "id", pid, epoch, true).ErrorCode, nil)
	wantCode(t, "then abort", r.endTxn(3, "id", pid, epoch, false).ErrorCode, kerr.InvalidTxnState)
	if o := fetchOffset(r, "g", "t", 0, true); o.Offset != 7 {
		t.Errorf("offset %d", o.Offset)
	}
}

func fetchOffset(r *raw, group, topic string, p int32, stable bool) kmsg.OffsetFetchResponseGroupTopicPartition {
	r.t.Helper()
	q := kmsg.NewPtrOffsetFetchRequest()
	q.RequireStable = stable
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: []int32{p}}}
	q.Groups = append(q.Groups, g)
	return ask[*kmsg.OffsetFetchResponse](r, 9, q).Groups[0].Topics[0].Partitions[0]
}

func commitTxnOffset(r *raw, id, group, topic string, pid int64, epoch int16, offset int64) {
	r.t.Helper()
	q := kmsg.NewPtrTxnOffsetCommitRequest()
	q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Group, q.Generation = id, pid, epoch, group, -1
	q.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: offset, LeaderEpoch: -1}}}}
	wantCode(r.t, "transaction's offsets", ask[*kmsg.TxnOffsetCommitResponse](r, 5, q).Topics[0].Partitions[0].ErrorCode, nil)
}

func TestOffsetsOfTransactions(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	if o := fetchOffset(r, "never heard of", "t", 0, true); o.ErrorCode != 0 || o.Offset != -1 {
		t.Errorf("offset of an unknown group: %v", o)
	}
	pid, e := r.initProducer("id", time.Minute)
	commitTxnOffset(r, "id", "g", "t", pid, e, 5)
	wantCode(t, "pending", fetchOffset(r, "g", "t", 0, true).ErrorCode, kerr.UnstableOffsetCommit)
	if o := fetchOffset(r, "g", "t", 0, false); o.ErrorCode != 0 || o.Offset != -1 {
		t.Errorf("a pending offset shows: %v", o)
	}
	e = r.endTxn(5, "id", pid, e, false).ProducerEpoch
	if o := fetchOffset(r, "g", "t", 0, true); o.ErrorCode != 0 || o.Offset != -1 {
		t.Errorf("an aborted offset: %v", o)
	}
	commitTxnOffset(r, "id", "g", "t", pid, e, 6)
	e = r.endTxn(5, "id", pid, e, true).ProducerEpoch
	if o := fetchOffset(r, "g", "t", 0, true); o.Offset != 6 {
		t.Errorf("a committed offset: %v", o)
	}
	// A commit outside the transaction that is later than the one inside wins.
	commitTxnOffset(r, "id", "g", "t", pid, e, 7)
	c := kmsg.NewPtrOffsetCommitRequest()
	c.Group, c.Generation = "g", -1
	c.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 9, LeaderEpoch: -1}}}}
	wantCode(t, "commit", ask[*kmsg.OffsetCommitResponse](r, 8, c).Topics[0].Partitions[0].ErrorCode, nil)
	r.endTxn(5, "id", pid, e, true)
	if o := fetchOffset(r, "g", "t", 0, true); o.Offset != 9 {
		t.Errorf("the later commit: %v", o)
	}
}

func TestTransactionTimeout(t *testing.T) {
	var now clock
	b := start(t, now.use)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	pid, e := r.initProducer("id", 10*time.Second)
	r.produce(12, "id", "t", 0, batch{pid, e, 0, true, []string{"lost"}})
	commitTxnOffset(r, "id", "g", "t", pid, e, 5)
	if end := endOffset(t, b, "t", 0, true); end != 0 {
		t.Fatalf("last stable offset %d with an open transaction", end)
	}
	now.advance(11 * time.Second)
	b.tick()
	deadline := time.Now().Add(10 * time.Second)
	for endOffset(t, b, "t", 0, true) != 2 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if end := endOffset(t, b, "t", 0, true); end != 2 {
		t.Errorf("last stable offset %d after the timeout", end)
	}
	wantCode(t, "produce after the timeout", r.produce(12, "id", "t", 0, batch{pid, e, 1, true, []string{"z"}}).ErrorCode, kerr.InvalidProducerEpoch)
	wantCode(t, "commit after the timeout", r.endTxn(5, "id", pid, e, true).ErrorCode, kerr.InvalidTxnState)
	if o := fetchOffset(r, "g", "t", 0, true); o.ErrorCode != 0 || o.Offset != -1 {
		t.Errorf("the offset of a transaction that timed out: %v", o)
	}
	if got := read(t, b, "t", 0); len(got) != 0 {
		t.Errorf("read committed: %q", got)
	}
}

// Which of a transaction's offset and a plain one came later is known after a crash, and when a group is taken back to what the log holds.
func TestOffsetsInOrderAgain(t *testing.T) {
	const groups = 20
	fs := vfs.NewCrashableMem()
	b := start(t, onFS(fs), sameBoot)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	plain := func(group string, offset int64) {
		q := kmsg.NewPtrOffsetCommitRequest()
		q.Group, q.Generation = group, -1
		q.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: offset, LeaderEpoch: -1}}}}
		wantCode(t, "commit", ask[*kmsg.OffsetCommitResponse](r, 8, q).Topics[0].Partitions[0].ErrorCode, nil)
	}
	pid, e := r.initProducer("id", time.Minute)
	for i := range groups {
		earlier, later := fmt.Sprint("earlier ", i), fmt.Sprint("later ", i)
		plain(earlier, 1)
		commitTxnOffset(r, "id", earlier, "t", pid, e, 2)
		commitTxnOffset(r, "id", later, "t", pid, e, 2)
		plain(later, 3)
	}
	again := func(b *Broker) {
		t.Helper()
		r := dialRaw(t, b)
		r.endTxn(5, "id", pid, e, true)
		for i := range groups {
			for name, want := range map[string]int64{"earlier": 2, "later": 3} {
				if o := fetchOffset(r, fmt.Sprint(name, " ", i), "t", 0, true); o.Offset != want {
					t.Errorf("a plain offset that came %s: %d, want %d", name, o.Offset, want)
				}
			}
		}
	}
	again(start(t, onFS(crash(fs, 100, 1)), sameBoot))
	for _, g := range b.groups.all() {
		g.broken.Store(true) // a write has failed
	}
	again(b)
}

// A transaction that is open when the broker dies goes on where it was.
func TestOngoingTransactionSurvivesCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	b := start(t, onFS(fs), sameBoot)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	pid, e := r.initProducer("id", time.Minute)
	r.produce(12, "id", "t", 0, batch{pid, e, 0, true, []string{"a"}})
	commitTxnOffset(r, "id", "g", "t", pid, e, 5)
	// What the operating system has survives a kill, synced or not.
	b = start(t, onFS(crash(fs, 100, 1)), sameBoot)
	r = dialRaw(t, b)
	wantCode(t, "unstable", fetchOffset(r, "g", "t", 0, true).ErrorCode, kerr.UnstableOffsetCommit)
	wantCode(t, "produce", r.produce(12, "id", "t", 0, batch{pid, e, 1, true, []string{"b"}}).ErrorCode, nil)
	wantCode(t, "commit", r.endTxn(5, "id", pid, e, true).ErrorCode, nil)
	if got := read(t, b, "t", 0); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("read committed: %q", got)
	}
	if o := fetchOffset(r, "g", "t", 0, true); o.Offset != 5 {
		t.Errorf("offset: %v", o)
	}
}

// After a power loss part of an open transaction may be gone, so it is aborted.
func TestOngoingTransactionIsFencedAfterPowerLoss(t *testing.T) {
	fs := vfs.NewCrashableMem()
	b := start(t, onFS(fs))
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	pid, e := r.initProducer("id", time.Minute)
	r.produce(12, "id", "t", 0, batch{pid, e, 0, true, []string{"a"}})
	b = start(t, onFS(crash(fs, 50, 1)))
	r = dialRaw(t, b)
	resp := r.endTxn(5, "id", pid, e, true)
	if resp.ErrorCode == 0 {
		t.Error("a transaction commits whose records may be lost")
	}
	if got := read(t, b, "t", 0); len(got) != 0 {
		t.Errorf("read committed: %q", got)
	}
}

// Nothing may be forgotten of a transaction that its producer has been told of: were it not known to be open after a power
// loss, the producer could go on and commit the rest of it.
func TestPowerLossKnowsWhatWasOpen(t *testing.T) {
	for what, open := range map[string]func(r *raw, pid int64, epoch int16) int16{
		"a record": func(r *raw, pid int64, epoch int16) int16 {
			return r.produce(12, "id", "t", 0, batch{pid, epoch, 0, true, []string{"lost"}}).ErrorCode
		},
		"an offset": func(r *raw, pid int64, epoch int16) int16 {
			commitTxnOffset(r, "id", "g", "t", pid, epoch, 5)
			return 0
		},
		"a partition": func(r *raw, pid int64, epoch int16) int16 {
			add := kmsg.NewPtrAddPartitionsToTxnRequest()
			add.TransactionalID, add.ProducerID, add.ProducerEpoch = "id", pid, epoch
			add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "t", Partitions: []int32{0}}}
			return ask[*kmsg.AddPartitionsToTxnResponse](r, 3, add).Topics[0].Partitions[0].ErrorCode
		},
		"a group": func(r *raw, pid int64, epoch int16) int16 {
			add := kmsg.NewPtrAddOffsetsToTxnRequest()
			add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = "id", pid, epoch, "g"
			return ask[*kmsg.AddOffsetsToTxnResponse](r, 3, add).ErrorCode
		},
	} {
		fs := vfs.NewCrashableMem()
		b := start(t, onFS(fs))
		r := dialRaw(t, b)
		r.createTopic("t", 2)
		pid, epoch := r.initProducer("id", time.Minute)
		wantCode(t, "the first", r.produce(12, "id", "t", 0, batch{pid, epoch, 0, true, []string{"first"}}).ErrorCode, nil)
		epoch = r.endTxn(5, "id", pid, epoch, true).ProducerEpoch
		wantCode(t, what, open(r, pid, epoch), nil)

		b = start(t, onFS(crash(fs, 0, 1)))
		r = dialRaw(t, b)
		wantCode(t, what+" and the power fails: the rest", r.produce(12, "id", "t", 1, batch{pid, epoch, 0, true, []string{"rest"}}).ErrorCode, kerr.InvalidProducerEpoch)
		if end := r.endTxn(5, "id", pid, epoch, true); end.ErrorCode == 0 {
			t.Errorf("%s and the power fails: the transaction is committed", what)
		}
		if got := append(read(t, b, "t", 0), read(t, b, "t", 1)...); !slices.Equal(got, []string{"first"}) {
			t.Errorf("%s and the power fails: read committed: %q", what, got)
		}
	}
}

// The end of a transaction is one write: whenever the power fails, its records and offsets are all there or none.
func TestCommitIsAtomic(t *testing.T) {
	for seed := range uint64(20) {
		fs := vfs.NewCrashableMem()
		b := start(t, onFS(fs), partitions(3))
		ctx := testContext(t)
		p := client(t, b, kgo.TransactionalID("id"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		var acked atomic.Int64
		var before int64 // acknowledged before the crash
		crashed := make(chan vfs.FS, 1)
		go func() {
			time.Sleep(time.Duration(seed) * 300 * time.Microsecond)
			before = acked.Load()
			crashed <- crash(fs, 50, seed)
		}()
		var image vfs.FS
		for image == nil {
			if err := p.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			for i := range int32(3) {
				p.Produce(ctx, &kgo.Record{Topic: "t", Partition: i, Value: fmt.Append(nil, acked.Load())}, nil)
			}
			if err := errors.Join(p.Flush(ctx), p.AbortBufferedRecords(ctx), p.EndTransaction(ctx, kgo.TryCommit)); err != nil {
				t.Fatal(err)
			}
			select {
			case image = <-crashed:
			default:
				acked.Add(1)
			}
		}
		p.Close()
		b = start(t, onFS(image))
		if b.catalog.topic("t") == nil {
			if before > 0 {
				t.Fatalf("seed %d: the topic is gone with %d transactions acknowledged", seed, before)
			}
			continue
		}
		got := make([]string, 3)
		for i := range int32(3) {
			got[i] = strings.Join(read(t, b, "t", i), " ")
		}
		if got[0] != got[1] || got[0] != got[2] {
			t.Fatalf("seed %d: a transaction is torn: %q", seed, got)
		}
		if n := len(strings.Fields(got[0])); n < int(before) {
			t.Fatalf("seed %d: %d of %d acknowledged transactions", seed, n, before)
		}
	}
}
