package broker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Scenarios that brokers have failed; docs/TESTING.md has the list, with those that are tested elsewhere.

func produceRequest(version int16, txnID, topic string, b batch) *kmsg.ProduceRequest {
	q := kmsg.NewPtrProduceRequest()
	q.Version, q.Acks, q.TransactionID = version, -1, nullable(txnID)
	q.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: b.encode()}}}}
	return q
}

// A transaction times out while its producer writes: what is written lies before the marker, all else is refused, and nothing
// is left open behind it.
func TestProduceRacesTheAbortOfItsTransaction(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var now clock
		b := start(t, now.use)
		r := dialRaw(t, b)
		r.createTopic("t", 1)
		pid, epoch := r.initProducer("id", 10*time.Second)
		const n = 40
		expired := make(chan struct{})
		at := rng.IntN(n)
		for i := range n {
			r.send(produceRequest(12, "id", "t", batch{pid, epoch, int32(i), true, []string{fmt.Sprint(i)}}))
			if i == at {
				go func() {
					defer close(expired)
					now.advance(11 * time.Second)
					b.tick()
				}()
			}
		}
		<-expired
		written, refused := 0, false
		for range n {
			resp, err := r.receive(produceRequest(12, "id", "t", batch{}))
			if err != nil {
				t.Fatal(err)
			}
			p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			switch {
			case p.ErrorCode == 0 && !refused:
				written++
			case p.ErrorCode == 0:
				t.Fatalf("seed %d: a batch at offset %d behind one that was refused", seed, p.BaseOffset)
			default:
				refused = true
				wantCode(t, "a batch behind the abort", p.ErrorCode, kerr.InvalidProducerEpoch)
			}
		}
		end := int64(written + 1) // the marker
		if endOffset(t, b, "t", 0, false) < end {
			now.advance(11 * time.Second) // it began after its time had come
			b.tick()
		}
		for deadline := time.Now().Add(10 * time.Second); endOffset(t, b, "t", 0, true) != end && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if stable, high := endOffset(t, b, "t", 0, true), endOffset(t, b, "t", 0, false); stable != end || high != end {
			t.Fatalf("seed %d: %d batches were accepted, stable below %d of %d", seed, written, stable, high)
		}
		if got := read(t, b, "t", 0); len(got) > 0 {
			t.Fatalf("seed %d: read committed: %q", seed, got)
		}
		b.Close()
	}
}

// Five batches are on their way when the connection is cut, after any number of answers or in the midst of a request. The
// client sends again what was not answered: each is there once, in order. A gap is refused, and can be closed.
func TestPipelinedProduceIsCut(t *testing.T) {
	const inFlight = 5
	for answers := range inFlight + 1 {
		for whole := range inFlight + 1 {
			if answers > whole {
				continue
			}
			b := start(t)
			r := dialRaw(t, b)
			r.createTopic("t", 1)
			pid, epoch := r.initProducer("", time.Minute)
			request := func(i int) *kmsg.ProduceRequest {
				return produceRequest(9, "", "t", batch{pid, epoch, int32(2 * i), false, []string{fmt.Sprint(2 * i), fmt.Sprint(2*i + 1)}})
			}
			for i := range inFlight {
				if i < whole {
					r.send(request(i))
					continue
				}
				frame := r.format.AppendRequest(nil, request(i), 1000)
				r.nc.Write(frame[:len(frame)*2/3])
				break
			}
			for i := range answers {
				if resp, err := r.receive(request(i)); err != nil || resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].BaseOffset != int64(2*i) {
					t.Fatalf("%d answers of %d: %v", answers, whole, err)
				}
			}
			r.nc.Close()
			r = dialRaw(t, b)
			for i := answers; i < inFlight; i++ {
				r.send(request(i))
			}
			for i := answers; i < inFlight; i++ {
				resp, err := r.receive(request(i))
				if err != nil {
					t.Fatal(err)
				}
				p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
				wantCode(t, "sent again", p.ErrorCode, nil)
				if p.BaseOffset != int64(2*i) {
					t.Errorf("%d answers of %d: batch %d is at offset %d", answers, whole, i, p.BaseOffset)
				}
			}
			wantCode(t, "a gap", r.produce(9, "", "t", 0, batch{pid, epoch, 2*inFlight + 1, false, []string{"11"}}).ErrorCode, kerr.OutOfOrderSequenceNumber)
			wantCode(t, "the gap is closed", r.produce(9, "", "t", 0, batch{pid, epoch, 2 * inFlight, false, []string{"10"}}).ErrorCode, nil)
			wantCode(t, "the next", r.produce(9, "", "t", 0, batch{pid, epoch, 2*inFlight + 1, false, []string{"11"}}).ErrorCode, nil)
			if got, want := readAs(t, b, "t", 0, kgo.ReadUncommitted()), values("", 12); !slices.Equal(got, want) {
				t.Errorf("%d answers of %d: %q", answers, whole, got)
			}
			b.Close()
		}
	}
}

// A transactional id goes on with a new producer id when its epochs are used up, for clients of either version, and who asks
// again because the answer was lost is told the same.
func TestEpochsRunOut(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	b := start(t)
	r := dialRaw(t, b)
	r.nc.SetDeadline(time.Now().Add(4 * time.Minute)) // the race detector takes its time
	r.createTopic("t", 1)
	for _, id := range []string{"v1", "v2"} {
		pid, epoch := r.initProducer(id, time.Minute)
		q := kmsg.NewPtrInitProducerIDRequest()
		q.Version, q.TransactionalID, q.TransactionTimeoutMillis, q.ProducerID, q.ProducerEpoch = 4, &id, 60000, -1, -1
		const last, together = 32766, 500
		for left := last - int(epoch); left > 0; {
			n := min(left, together)
			for range n {
				r.send(q)
			}
			for range n {
				resp, err := r.receive(q)
				if err != nil {
					t.Fatal(err)
				}
				p := resp.(*kmsg.InitProducerIDResponse)
				wantCode(t, "init", p.ErrorCode, nil)
				if p.ProducerID != pid {
					t.Fatalf("%s: producer %d epoch %d after %d", id, p.ProducerID, p.ProducerEpoch, pid)
				}
				epoch = p.ProducerEpoch
			}
			left -= n
		}
		if epoch != last {
			t.Fatalf("%s: epoch %d", id, epoch)
		}
		var next int64
		if id == "v1" {
			q.ProducerID, q.ProducerEpoch = pid, epoch
			for range 2 { // the second time for a lost answer
				p := ask[*kmsg.InitProducerIDResponse](r, 4, q)
				wantCode(t, "the next producer id", p.ErrorCode, nil)
				if p.ProducerID == pid || p.ProducerEpoch != 0 || next != 0 && p.ProducerID != next {
					t.Errorf("%s: producer %d epoch %d after %d epoch %d", id, p.ProducerID, p.ProducerEpoch, pid, epoch)
				}
				next = p.ProducerID
			}
		} else {
			wantCode(t, "the last epoch", r.produce(12, id, "t", 0, batch{pid, epoch, 0, true, []string{"last"}}).ErrorCode, nil)
			for range 2 {
				p := r.endTxn(5, id, pid, epoch, true)
				wantCode(t, "commit", p.ErrorCode, nil)
				if p.ProducerID == pid || p.ProducerEpoch != 0 || next != 0 && p.ProducerID != next {
					t.Errorf("%s: producer %d epoch %d after %d epoch %d", id, p.ProducerID, p.ProducerEpoch, pid, epoch)
				}
				next = p.ProducerID
			}
		}
		wantCode(t, "the old producer", r.produce(12, id, "t", 0, batch{pid, epoch, 1, true, []string{"late"}}).ErrorCode, kerr.InvalidProducerIDMapping)
		wantCode(t, "the new one", r.produce(12, id, "t", 0, batch{next, 0, 0, true, []string{id}}).ErrorCode, nil)
		wantCode(t, "its commit", r.endTxn(5, id, next, 0, true).ErrorCode, nil)
	}
	if got := read(t, b, "t", 0); !slices.Equal(got, []string{"v1", "last", "v2"}) {
		t.Errorf("read committed: %q", got)
	}
}

// Clients of version 1 have one epoch for all their transactions, so nothing tells a delayed end of one from the end of the
// next: it ends that. It is Kafka's protocol, and what version 2 is for.
func TestDelayedEndOfVersion1(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	pid, epoch := r.initProducer("id", time.Minute)
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch = "id", pid, epoch
	add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "t", Partitions: []int32{0}}}
	for i, v := range []string{"first", "second"} {
		wantCode(t, "add", ask[*kmsg.AddPartitionsToTxnResponse](r, 3, add).Topics[0].Partitions[0].ErrorCode, nil)
		wantCode(t, "produce", r.produce(10, "id", "t", 0, batch{pid, epoch, int32(i), true, []string{v}}).ErrorCode, nil)
		// For the second this is the end of the first, on its way since.
		wantCode(t, "commit", r.endTxn(3, "id", pid, epoch, true).ErrorCode, nil)
	}
	wantCode(t, "not added to a third", r.produce(10, "id", "t", 0, batch{pid, epoch, 2, true, []string{"third"}}).ErrorCode, kerr.InvalidTxnState)
	if got := read(t, b, "t", 0); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("read committed: %q", got)
	}
}
