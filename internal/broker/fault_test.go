package broker

import (
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fullDisk refuses writes while it is set.
type fullDisk struct{ full atomic.Bool }

func (d *fullDisk) String() string { return "full disk" }

func (d *fullDisk) MaybeError(op errorfs.Op) error {
	if d.full.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt) {
		return syscall.ENOSPC
	}
	return nil
}

// While the disk is full nothing is acknowledged, and what was refused is not half done: the same requests succeed, once,
// when there is room again.
func TestFullDisk(t *testing.T) {
	disk := &fullDisk{}
	b := start(t, onFS(errorfs.Wrap(vfs.NewMem(), disk)), listening, func(c *Config) { c.Logger = discard() })
	r := dialTCP(t, b)
	r.createTopic("t", 1)
	pid, epoch := r.initProducer("id", time.Minute)
	member, generation := joinAlone(r, "g", "", 10*time.Second)
	wantCode(t, "produce", r.produce(12, "id", "t", 0, batch{pid, epoch, 0, true, []string{"a"}}).ErrorCode, nil)
	commitTxnOffset(r, "id", "g2", "t", pid, epoch, 5)

	disk.full.Store(true)
	wantCode(t, "produce to a full disk", r.produce(12, "id", "t", 0, batch{pid, epoch, 1, true, []string{"b"}}).ErrorCode, kerr.KafkaStorageError)
	end := kmsg.NewPtrEndTxnRequest()
	end.Version, end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = 5, "id", pid, epoch, true
	r.send(end)
	if resp, err := r.receive(end); err == nil {
		t.Errorf("a commit on a full disk: %v", kerr.ErrorForCode(resp.(*kmsg.EndTxnResponse).ErrorCode))
	}
	r = dialTCP(t, b)
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.MemberID, commit.Generation = "g", member, generation
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3, LeaderEpoch: -1}}}}
	wantCode(t, "offsets on a full disk", ask[*kmsg.OffsetCommitResponse](r, 8, commit).Topics[0].Partitions[0].ErrorCode, kerr.CoordinatorNotAvailable)
	if got := read(t, b, "t", 0); len(got) != 0 {
		t.Errorf("read committed: %q", got)
	}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "u", NumPartitions: 1, ReplicationFactor: 1}}
	wantCode(t, "topic on a full disk", ask[*kmsg.CreateTopicsResponse](r, 7, create).Topics[0].ErrorCode, kerr.KafkaStorageError)
	wantCode(t, "produce to a topic that is not", r.produce(9, "", "u", 0, plain).ErrorCode, kerr.UnknownTopicOrPartition)

	disk.full.Store(false)
	r = dialTCP(t, b)
	if o := fetchOffset(r, "g", "t", 0, true); o.Offset != -1 {
		t.Errorf("an offset that was refused: %+v", o)
	}
	wantCode(t, "pending offset", fetchOffset(r, "g2", "t", 0, true).ErrorCode, kerr.UnstableOffsetCommit)
	wantCode(t, "heartbeat", heartbeat(r, "g", member, "", generation), nil)
	wantCode(t, "topic again", ask[*kmsg.CreateTopicsResponse](r, 7, create).Topics[0].ErrorCode, nil)
	wantCode(t, "offsets again", ask[*kmsg.OffsetCommitResponse](r, 8, commit).Topics[0].Partitions[0].ErrorCode, nil)
	wantCode(t, "produce again", r.produce(12, "id", "t", 0, batch{pid, epoch, 1, true, []string{"b"}}).ErrorCode, nil)
	wantCode(t, "commit again", r.endTxn(5, "id", pid, epoch, true).ErrorCode, nil)
	if got := read(t, b, "t", 0); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("read committed: %q", got)
	}
	if o := fetchOffset(r, "g2", "t", 0, true); o.Offset != 5 {
		t.Errorf("the transaction's offset: %+v", o)
	}
}

// A group whose deletion could not be written is there as before.
func TestGroupIsNotDeletedOnAFullDisk(t *testing.T) {
	disk := &fullDisk{}
	b := start(t, onFS(errorfs.Wrap(vfs.NewMem(), disk)), listening, func(c *Config) { c.Logger = discard() })
	r := dialTCP(t, b)
	r.createTopic("t", 1)
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group = "g"
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3, LeaderEpoch: -1}}}}
	wantCode(t, "commit", ask[*kmsg.OffsetCommitResponse](r, 8, commit).Topics[0].Partitions[0].ErrorCode, nil)
	disk.full.Store(true)
	del := &kmsg.DeleteGroupsRequest{Version: 2, Groups: []string{"g"}}
	r.send(del)
	if resp, err := r.receive(del); err == nil {
		t.Errorf("deleted on a full disk: %v", kerr.ErrorForCode(resp.(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode))
	}
	disk.full.Store(false)
	r = dialTCP(t, b)
	if o := fetchOffset(r, "g", "t", 0, true); o.Offset != 3 {
		t.Errorf("the group's offset: %+v", o)
	}
	for _, want := range []*kerr.Error{nil, kerr.GroupIDNotFound} {
		wantCode(t, "delete", ask[*kmsg.DeleteGroupsResponse](r, 2, del).Groups[0].ErrorCode, want)
	}
	if o := fetchOffset(r, "g", "t", 0, true); o.Offset != -1 {
		t.Errorf("the deleted group's offset: %+v", o)
	}
}

// Topics that could not be written leave nothing behind, however often clients ask for them.
func TestTopicsOfAFullDisk(t *testing.T) {
	disk := &fullDisk{}
	b := start(t, onFS(errorfs.Wrap(vfs.NewMem(), disk)), listening, partitions(3), func(c *Config) { c.Logger = discard() })
	r := dialTCP(t, b)
	r.createTopic("t", 2)
	disk.full.Store(true)
	for range 3 {
		q := kmsg.NewPtrMetadataRequest()
		q.AllowAutoTopicCreation, q.Topics = true, []kmsg.MetadataRequestTopic{{Topic: ptr("u")}}
		wantCode(t, "a topic on a full disk", ask[*kmsg.MetadataResponse](r, 12, q).Topics[0].ErrorCode, kerr.KafkaStorageError)
		grow := &kmsg.CreatePartitionsRequest{Topics: []kmsg.CreatePartitionsRequestTopic{{Topic: "t", Count: 5}}}
		wantCode(t, "partitions on a full disk", ask[*kmsg.CreatePartitionsResponse](r, 3, grow).Topics[0].ErrorCode, kerr.KafkaStorageError)
	}
	if n := len(b.log.Partitions()); n != 2 {
		t.Errorf("the log knows %d partitions of 2", n)
	}
	disk.full.Store(false)
	wantCode(t, "a partition that is not", r.produce(9, "", "t", 2, plain).ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "a partition that is", r.produce(9, "", "t", 1, plain).ErrorCode, nil)
}

// After a failed write an id is taken back to what the log holds, with the writes that are on their way to it.
func TestStateOnItsWay(t *testing.T) {
	disk := &slowDisk{goOn: make(chan struct{})}
	b := start(t, onFS(errorfs.Wrap(vfs.NewMem(), disk)))
	r, other := dialRaw(t, b), dialRaw(t, b)
	r.createTopic("t", 1)
	pid, epoch := r.initProducer("id", time.Minute)
	disk.slow.Store(true)
	add := &kmsg.AddPartitionsToTxnRequest{Version: 3, TransactionalID: "id", ProducerID: pid, ProducerEpoch: epoch,
		Topics: []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "t", Partitions: []int32{0}}}}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group = 8, "g"
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3, LeaderEpoch: -1}}}}
	r.send(add)
	r.send(commit)
	for ready := false; !ready; {
		if g := b.groups.lock("g", false); g != nil {
			ready = g.last != nil
			g.mu.Unlock()
		}
	}
	// As if a write before had failed, and its writer heard of it only now.
	e := b.txns.lock("id")
	e.broken.Store(true)
	e.mu.Unlock()
	g := b.groups.lock("g", false)
	g.broken.Store(true)
	g.mu.Unlock()
	end := kmsg.NewPtrEndTxnRequest()
	end.Version, end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = 3, "id", pid, epoch, true
	other.send(end)
	reader, third := dialRaw(t, b), make(chan int64)
	go func() { third <- fetchOffset(reader, "g", "t", 0, true).Offset }()
	time.Sleep(10 * time.Millisecond) // let them come; the test holds without too
	close(disk.goOn)
	resp, err := other.receive(end)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "commit", resp.(*kmsg.EndTxnResponse).ErrorCode, nil)
	if got := <-third; got != 3 {
		t.Errorf("the offset is %d", got)
	}
}

// Whether a group is deleted is said by the write that does so, not by one before it whose failure is heard of late.
func TestGroupIsDeletedAfterAFailure(t *testing.T) {
	disk := &slowDisk{goOn: make(chan struct{})}
	b := start(t, onFS(errorfs.Wrap(vfs.NewMem(), disk)))
	g := b.groups.lock("g", true)
	disk.slow.Store(true)
	if _, err := b.groups.delete(g, b.cfg.Now()); err != nil {
		t.Fatal(err)
	}
	g.broken.Store(true)
	next := make(chan *consumers)
	g.mu.Unlock()
	go func() { next <- b.groups.lock("g", true) }()
	time.Sleep(10 * time.Millisecond) // let it come; the test holds without too
	close(disk.goOn)
	got := <-next
	got.mu.Unlock()
	if b.groups.entry("g") != got {
		t.Error("who asks for the group gets one that is not listed")
	}
}

// A group is not said to be deleted because the last one of the request is.
func TestGroupsAreDeletedEach(t *testing.T) {
	disk := &oneFailure{}
	b := start(t, onFS(errorfs.Wrap(vfs.NewMem(), disk)), func(c *Config) { c.Logger = discard() })
	del := &kmsg.DeleteGroupsRequest{Version: 2}
	for i := range 1000 {
		id := fmt.Sprint(i)
		b.groups.lock(id, true).mu.Unlock()
		del.Groups = append(del.Groups, id)
	}
	r := dialRaw(t, b)
	disk.due.Store(true)
	r.send(del)
	if _, err := r.receive(del); err == nil {
		t.Errorf("all are deleted, and %d are there", len(b.groups.all()))
	}
}

// oneFailure refuses one write once it is due.
type oneFailure struct{ due atomic.Bool }

func (d *oneFailure) String() string { return "one failure" }

func (d *oneFailure) MaybeError(op errorfs.Op) error {
	if (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt) && d.due.Swap(false) {
		return syscall.ENOSPC
	}
	return nil
}
