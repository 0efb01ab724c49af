package broker

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// side is one of two brokers that get the same requests. Ids that brokers choose have names of our own.
type side struct {
	*raw
	prefix  string
	pids    map[string]producerOf
	next    map[string]int32 // sequence by producer and partition
	altered int              // how often a setting was altered to see that others are applied
}

type producerOf struct {
	id    int64
	epoch int16
}

// step is one request with everything decided but the ids that brokers choose. It returns what is compared.
type step[S any] struct {
	name string
	do   func(s S) string
}

// differential sends n random sequences of steps here and to Apache Kafka at MOLDAU_KAFKA, and wants the same answers. begin
// makes a side, and steps draws what is done next; it may look at what our side knows. MOLDAU_SEED is the first sequence.
func differential[S interface{ close() }](t *testing.T, n int, stream uint64, begin func(t *testing.T, addr, prefix string) S, steps func(r *rand.Rand, ours S) iter.Seq[step[S]]) {
	kafka := apacheKafka(t)
	b := start(t, listening, func(c *Config) { c.NoAutoCreate = true })
	// A cluster makes the topics of its coordinators when somebody asks for one.
	for typ := range int8(2) {
		patiently(newSide(t, kafka, ""), 3, &kmsg.FindCoordinatorRequest{CoordinatorKey: "k", CoordinatorType: typ}, func(r *kmsg.FindCoordinatorResponse) int16 { return r.ErrorCode })
	}
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	different := 0
	first := number("MOLDAU_SEED", 0)
	for seed := first; seed < first+n; seed++ {
		r := rand.New(rand.NewPCG(uint64(seed), stream))
		prefix := fmt.Sprintf("%s-%d-", run, seed)
		ours, theirs := begin(t, b.Addr(), prefix), begin(t, kafka, prefix)
		var said []string
		for s := range steps(r, ours) {
			got, want := s.do(ours), s.do(theirs)
			said = append(said, s.name+"\n      "+got)
			if got != want {
				different++
				t.Errorf("seed %d: here\n    %s\n  there\n      %s", seed, strings.Join(said, "\n    "), want)
				break
			}
		}
		ours.close()
		theirs.close()
		if different >= 10 {
			t.Fatal("enough")
		}
	}
}

// apacheKafka is the address of a broker of Apache Kafka.
func apacheKafka(t *testing.T) string {
	addr := os.Getenv("MOLDAU_KAFKA")
	if addr == "" {
		t.Skip("MOLDAU_KAFKA names no broker; make kafka-fuzz starts one")
	}
	return addr
}

// number returns what a variable of the environment says.
func number(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

// TestDifferential sends random sequences of valid and nearly valid requests. Not compared: words, ids that brokers choose,
// clocks, leader epochs, the size of what is compressed; segment.bytes below a megabyte, which Kafka 4 refuses and we take, because small segments are how
// others test compaction; the epoch -1 of a producer that has an id, which Kafka takes and we refuse, because it is below any
// that an id can have. MOLDAU_SEQUENCES is how many (300).
func TestDifferential(t *testing.T) {
	differential(t, number("MOLDAU_SEQUENCES", 300), 1, newSide, func(r *rand.Rand, _ *side) iter.Seq[step[*side]] {
		steps := []step[*side]{{"CreateTopics a", func(s *side) string { return s.createTopics(7, "a", 2, "", "", false) }}}
		for range 6 + r.IntN(12) {
			steps = append(steps, randomStep(r))
		}
		return slices.Values(steps[r.IntN(5)/4:]) // seldom without a topic
	})
}

func newSide(t *testing.T, addr, prefix string) *side {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(2 * time.Minute))
	return &side{raw: &raw{t: t, nc: nc, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("test"))}, prefix: prefix,
		pids: map[string]producerOf{}, next: map[string]int32{}}
}

func (s *side) close() { s.nc.Close() }

// patiently asks until the answer is not that it is too early: a cluster takes its time for what we do at once.
func patiently[P kmsg.Response](s *side, version int16, q kmsg.Request, code func(P) int16) P {
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp := ask[P](s.raw, version, q)
		switch kerr.ErrorForCode(code(resp)) {
		case kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.NotLeaderForPartition, kerr.LeaderNotAvailable:
			if time.Now().Before(deadline) {
				time.Sleep(2 * time.Millisecond) // a limit is set, and nothing to wait on
				continue
			}
		}
		return resp
	}
}

func name(code int16) string {
	if err := kerr.ErrorForCode(code); err != nil {
		return err.(*kerr.Error).Message
	}
	return "ok"
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// randomStep draws a request.
func randomStep(r *rand.Rand) step[*side] {
	topic, partition := pick(r, "a", "a", "a", "b", "none"), int32(pick(r, 0, 0, 0, 1, 7))
	groupID, txnID := pick(r, "g", "g", "h"), pick(r, "x", "x", "y")
	steps := []func() step[*side]{
		func() step[*side] {
			topic, n, only := pick(r, "a", "a", "b", "bad name", ""), pick[int32](r, 1, 2, 2, 0, -1), r.IntN(8) == 0
			config, value := pick(r, "", "", "retention.ms", "cleanup.policy", "no.such", "max.message.bytes"), pick(r, "1000", "compact", "x", "-2")
			version := int16(2 + r.IntN(6))
			return step[*side]{fmt.Sprintf("CreateTopics v%d %q %d %s=%s only=%v", version, topic, n, config, value, only), func(s *side) string {
				return s.createTopics(version, topic, n, config, value, only)
			}}
		},
		func() step[*side] {
			version := int16(pick(r, 4, 8, 9, 12, 13))
			return step[*side]{fmt.Sprintf("Metadata v%d %s", version, topic), func(s *side) string { return s.metadataOf(version, topic) }}
		},
		func() step[*side] {
			id, version := pick(r, &txnID, &txnID, &txnID, nil, ptr("")), int16(r.IntN(6))
			timeout := pick[int32](r, 60_000, 60_000, 60_000, 0, 100_000_000)
			again, delta := r.IntN(4) == 0 && version >= 3, pick[int16](r, 0, 0, 1, -1)
			return step[*side]{fmt.Sprintf("InitProducerID v%d %q timeout=%d again=%v%+d", version, deref(id), timeout, again, delta), func(s *side) string {
				return s.initProducerID(version, id, timeout, again, delta)
			}}
		},
		func() step[*side] { return produceStep(r, topic, partition) },
		func() step[*side] { return produceStep(r, "a", 0) },
		func() step[*side] {
			version, delta := int16(r.IntN(4)), pick[int16](r, 0, 0, 0, 1, -1)
			return step[*side]{fmt.Sprintf("AddPartitionsToTxn v%d %s %s/%d epoch%+d", version, txnID, topic, partition, delta), func(s *side) string {
				p := s.producer(txnID)
				q := &kmsg.AddPartitionsToTxnRequest{TransactionalID: s.prefix + txnID, ProducerID: p.id, ProducerEpoch: p.epoch + delta,
					Topics: []kmsg.AddPartitionsToTxnRequestTopic{{Topic: s.prefix + topic, Partitions: []int32{partition}}}}
				resp := patiently(s, version, q, func(r *kmsg.AddPartitionsToTxnResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode })
				return name(resp.Topics[0].Partitions[0].ErrorCode)
			}}
		},
		func() step[*side] {
			version, delta := int16(r.IntN(5)), pick[int16](r, 0, 0, 0, 1)
			return step[*side]{fmt.Sprintf("AddOffsetsToTxn v%d %s %s epoch%+d", version, txnID, groupID, delta), func(s *side) string {
				p := s.producer(txnID)
				q := &kmsg.AddOffsetsToTxnRequest{TransactionalID: s.prefix + txnID, ProducerID: p.id, ProducerEpoch: p.epoch + delta, Group: s.prefix + groupID}
				return name(patiently(s, version, q, func(r *kmsg.AddOffsetsToTxnResponse) int16 { return r.ErrorCode }).ErrorCode)
			}}
		},
		func() step[*side] {
			version, at := int16(r.IntN(6)), int64(r.IntN(5))
			generation, member := pick[int32](r, -1, -1, 3), pick(r, "", "", "who")
			return step[*side]{fmt.Sprintf("TxnOffsetCommit v%d %s %s %s/%d@%d %q/%d", version, txnID, groupID, topic, partition, at, member, generation), func(s *side) string {
				p := s.producer(txnID)
				q := kmsg.NewPtrTxnOffsetCommitRequest()
				q.TransactionalID, q.Group, q.ProducerID, q.ProducerEpoch, q.Generation, q.MemberID = s.prefix+txnID, s.prefix+groupID, p.id, p.epoch, generation, member
				q.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: s.prefix + topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: partition, Offset: at, LeaderEpoch: -1}}}}
				resp := patiently(s, version, q, func(r *kmsg.TxnOffsetCommitResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode })
				return name(resp.Topics[0].Partitions[0].ErrorCode)
			}}
		},
		func() step[*side] {
			version, commit, delta := int16(r.IntN(6)), r.IntN(3) > 0, pick[int16](r, 0, 0, 0, 0, 1, -1)
			return step[*side]{fmt.Sprintf("EndTxn v%d %s commit=%v epoch%+d", version, txnID, commit, delta), func(s *side) string {
				return s.end(version, txnID, commit, delta)
			}}
		},
		func() step[*side] {
			version, at := int16(2+r.IntN(8)), int64(r.IntN(9))
			generation, member := pick[int32](r, -1, -1, -1, 2), pick(r, "", "", "", "who")
			return step[*side]{fmt.Sprintf("OffsetCommit v%d %s %s/%d@%d %q/%d", version, groupID, topic, partition, at, member, generation), func(s *side) string {
				q := kmsg.NewPtrOffsetCommitRequest()
				q.Group, q.Generation, q.MemberID = s.prefix+groupID, generation, member
				q.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: s.prefix + topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: partition, Offset: at, LeaderEpoch: -1, Metadata: ptr("m")}}}}
				resp := patiently(s, version, q, func(r *kmsg.OffsetCommitResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode })
				return name(resp.Topics[0].Partitions[0].ErrorCode)
			}}
		},
		func() step[*side] {
			version, all, stable := int16(1+r.IntN(9)), r.IntN(3) == 0, r.IntN(2) == 0
			return step[*side]{fmt.Sprintf("OffsetFetch v%d %s %s/%d all=%v stable=%v", version, groupID, topic, partition, all, stable), func(s *side) string {
				return s.fetchOffsets(version, groupID, topic, partition, all && version >= 2, stable && version >= 7)
			}}
		},
		func() step[*side] {
			version := int16(1 + r.IntN(9))
			at, isolation := pick[int64](r, -1, -2, -1, 0), int8(r.IntN(2))
			return step[*side]{fmt.Sprintf("ListOffsets v%d %s/%d at %d isolation=%d", version, topic, partition, at, isolation), func(s *side) string {
				q := kmsg.NewPtrListOffsetsRequest()
				q.ReplicaID, q.IsolationLevel = -1, isolation
				q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: s.prefix + topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Partition: partition, CurrentLeaderEpoch: -1, Timestamp: at}}}}
				resp := patiently(s, version, q, func(r *kmsg.ListOffsetsResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode })
				p := resp.Topics[0].Partitions[0]
				return fmt.Sprint(name(p.ErrorCode), " ", p.Offset)
			}}
		},
		func() step[*side] {
			version, at := int16(4+r.IntN(9)), int64(pick(r, 0, 0, 1, 3, 99))
			isolation := int8(r.IntN(2))
			return step[*side]{fmt.Sprintf("Fetch v%d %s/%d@%d isolation=%d", version, topic, partition, at, isolation), func(s *side) string {
				return s.fetchAt(version, topic, partition, at, isolation)
			}}
		},
		func() step[*side] {
			version, at := int16(r.IntN(3)), int64(pick(r, 0, 1, 2, -1, 50, -5))
			return step[*side]{fmt.Sprintf("DeleteRecords v%d %s/%d@%d", version, topic, partition, at), func(s *side) string {
				q := kmsg.NewPtrDeleteRecordsRequest()
				q.TimeoutMillis = 5000
				q.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: s.prefix + topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: partition, Offset: at}}}}
				p := patiently(s, version, q, func(r *kmsg.DeleteRecordsResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode }).Topics[0].Partitions[0]
				return fmt.Sprint(name(p.ErrorCode), " ", p.LowWatermark)
			}}
		},
		func() step[*side] {
			what, member := pick(r, "Heartbeat", "LeaveGroup", "SyncGroup"), pick(r, "", "who")
			return step[*side]{fmt.Sprintf("%s %s %q", what, groupID, member), func(s *side) string { return s.asMember(what, groupID, member) }}
		},
		func() step[*side] {
			version := int16(r.IntN(6))
			return step[*side]{fmt.Sprintf("DescribeGroups v%d %s", version, groupID), func(s *side) string {
				resp := patiently(s, version, &kmsg.DescribeGroupsRequest{Groups: []string{s.prefix + groupID}}, func(r *kmsg.DescribeGroupsResponse) int16 { return r.Groups[0].ErrorCode })
				g := resp.Groups[0]
				return fmt.Sprint(name(g.ErrorCode), " ", g.State, " ", g.ProtocolType, " ", len(g.Members))
			}}
		},
		func() step[*side] {
			return step[*side]{"DeleteGroups " + groupID, func(s *side) string {
				resp := patiently(s, 2, &kmsg.DeleteGroupsRequest{Groups: []string{s.prefix + groupID}}, func(r *kmsg.DeleteGroupsResponse) int16 { return r.Groups[0].ErrorCode })
				return name(resp.Groups[0].ErrorCode)
			}}
		},
		func() step[*side] {
			n, version := pick[int32](r, 3, 1, 4, 0), int16(r.IntN(4))
			return step[*side]{fmt.Sprintf("CreatePartitions v%d %s %d", version, topic, n), func(s *side) string {
				q := &kmsg.CreatePartitionsRequest{TimeoutMillis: 5000, Topics: []kmsg.CreatePartitionsRequestTopic{{Topic: s.prefix + topic, Count: n}}}
				resp := ask[*kmsg.CreatePartitionsResponse](s.raw, version, q)
				if resp.Topics[0].ErrorCode == 0 {
					s.await(topic, n)
				}
				return name(resp.Topics[0].ErrorCode)
			}}
		},
		func() step[*side] {
			key, value := pick(r, "retention.ms", "cleanup.policy", "min.insync.replicas", "no.such", "compression.type"), pick(r, "5000", "compact", "delete,compact", "gzip", "-7")
			op := pick(r, kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpDelete, kmsg.IncrementalAlterConfigOpAppend)
			return step[*side]{fmt.Sprintf("IncrementalAlterConfigs %s %d %s=%s", topic, op, key, value), func(s *side) string {
				return s.alterConfig(topic, key, value, op)
			}}
		},
		func() step[*side] {
			return step[*side]{"DescribeTransactions " + txnID, func(s *side) string {
				resp := patiently(s, 0, &kmsg.DescribeTransactionsRequest{TransactionalIDs: []string{s.prefix + txnID}}, func(r *kmsg.DescribeTransactionsResponse) int16 { return r.TransactionStates[0].ErrorCode })
				x := resp.TransactionStates[0]
				parts := 0
				for _, t := range x.Topics {
					if strings.HasPrefix(t.Topic, s.prefix) { // a cluster shows the topic that it keeps offsets in
						parts += len(t.Partitions)
					}
				}
				return fmt.Sprint(name(x.ErrorCode), " ", x.State, " ", x.TimeoutMillis, " epoch ", x.ProducerEpoch, " partitions ", parts)
			}}
		},
	}
	return steps[r.IntN(len(steps))]()
}

func produceStep(r *rand.Rand, topic string, partition int32) step[*side] {
	version := int16(3 + r.IntN(10))
	who := pick(r, "", "", "x", "x", "x", "y", "~")
	inTxn := who != "" && who != "~" && r.IntN(4) > 0
	off, delta := pick[int32](r, 0, 0, 0, 0, 1, -1), pick[int16](r, 0, 0, 0, 0, 0, 1, -1)
	n := 1 + r.IntN(3)
	return step[*side]{fmt.Sprintf("Produce v%d %s/%d %d records by %q txn=%v sequence%+d epoch%+d", version, topic, partition, n, who, inTxn, off, delta), func(s *side) string {
		b := batch{pid: -1, epoch: -1, sequence: -1, txn: inTxn, values: slices.Repeat([]string{"v"}, n)}
		key := fmt.Sprint(who, topic, partition)
		if p, ok := s.pids[who]; ok {
			b.pid, b.epoch, b.sequence = p.id, max(0, p.epoch+delta), max(0, s.next[key]+off)
		} else {
			b.txn = false
		}
		q := kmsg.NewPtrProduceRequest()
		q.Acks, q.TimeoutMillis = -1, 5000
		if b.txn {
			q.TransactionID = ptr(s.prefix + who)
		}
		q.Topics = []kmsg.ProduceRequestTopic{{Topic: s.prefix + topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: partition, Records: b.encode()}}}}
		resp := patiently(s, version, q, func(r *kmsg.ProduceResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode })
		p := resp.Topics[0].Partitions[0]
		if p.ErrorCode == 0 && b.pid >= 0 && off == 0 {
			s.next[key] = b.sequence + int32(n)
		}
		return fmt.Sprint(name(p.ErrorCode), " offset ", p.BaseOffset, " start ", p.LogStartOffset)
	}}
}
