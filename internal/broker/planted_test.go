package broker

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/histories"
	"github.com/moldau/moldau/internal/broker/log"
)

// planted is a bug, and what the checker must call it.
type planted struct {
	what  string
	plant func(*Broker)
	// config is the bug that a power loss shows; the first start is without it.
	config func(*Config)
	// blows are what brings the bug out, and whom whose killing does. The checker must call it one of finds, and what may
	// follow from it one of or; nothing else may be found.
	blows     []blow
	whom      string
	finds, or []histories.Kind
}

var plants = map[string]planted{
	"no-sync": {
		what: "acknowledges before anything is synced", config: func(c *Config) { c.Durability = log.OS }, blows: []blow{crashes},
		finds: []histories.Kind{histories.LostWrite, histories.Unseen},
		or: []histories.Kind{histories.TornTransaction, histories.LostCommit, histories.EndsWentBack, histories.InconsistentOffsets,
			histories.ProcessedTwice, histories.Unprocessed, histories.PhantomCommit, histories.Duplicate, histories.PhantomRead, histories.NonmonotonicPoll, histories.PollSkip,
			histories.Reordered}, // of two that were written twice, the later ones again
	},
	"no-sequences": {
		what: "takes a batch that is sent again for a new one", plant: plantNoSequences, blows: []blow{cutsAll},
		finds: []histories.Kind{histories.Duplicate},
		// What was read from the connection that was cut may be written when later batches have been sent again.
		or: []histories.Kind{histories.Reordered},
	},
	"no-epochs": {
		what: "takes a zombie's batch for its successor's", plant: plantNoEpochs, blows: []blow{kills}, whom: "txn-",
		finds: []histories.Kind{histories.AbortedRead},
		// It has its successor's sequence, so the successor's own batch may be taken for one that is sent again, and is not written.
		or: []histories.Kind{histories.InconsistentOffsets, histories.TornTransaction, histories.LostWrite, histories.Unseen, histories.Unprocessed,
			histories.ProcessedTwice},
	},
	"no-isolation": {
		what: "gives everything to readers of committed records", plant: plantNoIsolation, blows: []blow{cutsHalf},
		finds: []histories.Kind{histories.AbortedRead},
		// Transactions read from each other while both are open; and what was read of an aborted one is compacted away.
		or: []histories.Kind{histories.UncommittedRead, histories.EndsWentBack, histories.ProcessedTwice, histories.Circular,
			histories.LostWrite, histories.Unseen, histories.TornTransaction},
	},
	"torn": {
		what: "commits a transaction but for one of its partitions", plant: plantTorn, blows: []blow{cutsHalf},
		finds: []histories.Kind{histories.TornTransaction},
		or:    []histories.Kind{histories.Unprocessed},
	},
	"forgets-offsets": {
		what: "acknowledges offsets of transactions and forgets every other one", plant: plantForgetsOffsets, blows: []blow{kills},
		finds: []histories.Kind{histories.LostCommit, histories.ProcessedTwice},
	},
}

// TestPlantedBugs shows that the checker finds what it is for: a broker with one bug is run as in TestHistories, and struck
// where it hurts, until the bug has shown; each time for longer and with more time between, since on a busy machine little
// is done in two seconds, and nothing between two strikes. It is part of make check-broker.
func TestPlantedBugs(t *testing.T) {
	if os.Getenv("MOLDAU_ROUNDS") == "" {
		t.Skip("MOLDAU_ROUNDS is not set: make check-broker runs this")
	}
	for name, p := range plants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 10; seed++ {
				slow := time.Duration(seed)
				r := &round{seed: seed, length: slow * 2 * time.Second, powerLoss: p.config != nil, plant: name, blows: p.blows, whom: p.whom,
					every: slow * 200 * time.Millisecond, patience: slow * 15 * time.Second}
				r.run(t)
				if t.Failed() {
					return
				}
				if r.stuck != nil { // true enough, but not what the checker is to find
					t.Logf("a broker that %s: %v", p.what, r.stuck)
				}
				kinds := map[histories.Kind]int{}
				found := false
				for _, a := range r.anomalies {
					kinds[a.Kind]++
					found = found || slices.Contains(p.finds, a.Kind)
					if !slices.Contains(p.finds, a.Kind) && !slices.Contains(p.or, a.Kind) {
						t.Errorf("a broker that %s: %s", p.what, a)
					}
				}
				if found {
					t.Logf("a broker that %s: %v, such as %s", p.what, kinds, r.anomalies[0])
					return
				}
			}
			t.Errorf("that the broker %s went unnoticed", p.what)
		})
	}
}

// instead puts a handler before the one of an API.
func instead[Q kmsg.Request](b *Broker, key int16, handle func(r *request, q Q, next func() reply) reply) {
	a := b.apis[key]
	next := a.handle
	a.handle = func(r *request, q kmsg.Request) reply {
		return handle(r, q.(Q), func() reply { return next(r, q) })
	}
	b.apis[key] = a
}

// eachBatch has f change the batches of a request.
func (b *Broker) eachBatch(q *kmsg.ProduceRequest, f func(p *log.Partition, batch []byte)) {
	for i := range q.Topics {
		t, _ := b.catalog.asked(q.Version >= 13, q.Topics[i].Topic, q.Topics[i].TopicID)
		for j := range q.Topics[i].Partitions {
			qp := &q.Topics[i].Partitions[j]
			if p := t.partition(qp.Partition); p != nil && len(qp.Records) >= batchHeaderSize {
				f(p, qp.Records)
				binary.BigEndian.PutUint32(qp.Records[17:], crc32.Checksum(qp.Records[21:], crc32.MakeTable(crc32.Castagnoli)))
			}
		}
	}
}

const sequenceAt = 53

func plantNoSequences(b *Broker) {
	instead(b, keyProduce, func(r *request, q *kmsg.ProduceRequest, next func() reply) reply {
		b.eachBatch(q, func(_ *log.Partition, batch []byte) {
			if _, ok := transactional(batch); !ok {
				binary.BigEndian.PutUint64(batch[producerIDAt:], 1<<64-1)
				binary.BigEndian.PutUint16(batch[producerEpochAt:], 1<<16-1)
				binary.BigEndian.PutUint32(batch[sequenceAt:], 1<<32-1)
			}
		})
		return next()
	})
}

func plantNoEpochs(b *Broker) {
	instead(b, keyProduce, func(r *request, q *kmsg.ProduceRequest, next func() reply) reply {
		if q.TransactionID == nil {
			return next()
		}
		e := b.txns.lock(*q.TransactionID)
		if e == nil {
			return next()
		}
		current := e.state.Producer()
		e.mu.Unlock()
		b.eachBatch(q, func(p *log.Partition, batch []byte) {
			sent, ok := transactional(batch)
			if !ok || sent.ID != current.ID || sent.Epoch >= current.Epoch {
				return
			}
			sequence := int32(0)
			for _, s := range p.Producers() {
				if _, open := p.OpenTxn(s.ProducerID); s.ProducerID == current.ID && open {
					sequence = s.LastSequence + 1
				}
			}
			binary.BigEndian.PutUint16(batch[producerEpochAt:], uint16(current.Epoch))
			binary.BigEndian.PutUint32(batch[sequenceAt:], uint32(sequence))
		})
		return next()
	})
}

func plantNoIsolation(b *Broker) {
	instead(b, 1, func(r *request, q *kmsg.FetchRequest, next func() reply) reply {
		q.IsolationLevel = 0
		return next()
	})
}

func plantTorn(b *Broker) {
	instead(b, 26, func(r *request, q *kmsg.EndTxnRequest, next func() reply) reply {
		if e := b.txns.lock(q.TransactionalID); e != nil {
			if parts := e.state.Partitions(); q.Commit && len(parts) > 1 {
				p := parts[0]
				b.log.Submit(log.Write{Markers: []log.Marker{{
					Partition: b.catalog.topicByID(p.Topic).partition(p.Partition), ProducerID: q.ProducerID, Epoch: q.ProducerEpoch,
				}}}, log.WaitNone, func(error) {})
			}
			e.mu.Unlock()
		}
		return next()
	})
}

func plantForgetsOffsets(b *Broker) {
	var n atomic.Int64
	instead(b, 28, func(r *request, q *kmsg.TxnOffsetCommitRequest, next func() reply) reply {
		if n.Add(1)%2 == 0 {
			return next()
		}
		resp := response[*kmsg.TxnOffsetCommitResponse](q)
		for _, t := range q.Topics {
			rt := kmsg.NewTxnOffsetCommitResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
				rp.Partition = p.Partition
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return answer(resp)
	})
}
