package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// null accepts records, checks their sums, acknowledges them and forgets them.
type null struct {
	// synced, unless nil, is a file written in full before, as the broker's log is: a page of it is written again, and synced,
	// before each acknowledgement. Used by one connection at a time.
	synced *os.File
	host   string
	port   int32
	crc    *crc32.Table

	mu     sync.Mutex
	topics map[string]*nullTopic
	byID   map[[16]byte]*nullTopic
}

type nullTopic struct {
	name string
	id   [16]byte
	ends []int64 // guarded by null.mu
}

func runNull(ctx context.Context, synced bool) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	var file *os.File
	if synced {
		if file, err = fullFile(1); err != nil {
			return err
		}
		defer file.Close()
		os.Remove(file.Name()) // it lives as long as it is open, and this process ends by a signal
	}
	n := &null{synced: file, host: "127.0.0.1", port: int32(l.Addr().(*net.TCPAddr).Port), crc: crc32.MakeTable(crc32.Castagnoli),
		topics: map[string]*nullTopic{}, byID: map[[16]byte]*nullTopic{}}
	fmt.Printf("null broker listens on %s\n", l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		go func() { // ends with the connection, at the latest with the process
			defer c.Close()
			n.serve(c)
		}()
	}
}

func (n *null) serve(c net.Conn) error {
	r := bufio.NewReaderSize(c, 64<<10)
	var in, out []byte
	for {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return err
		}
		length := int(binary.BigEndian.Uint32(size[:]))
		if cap(in) < length {
			in = make([]byte, length)
		}
		in = in[:length]
		if _, err := io.ReadFull(r, in); err != nil {
			return err
		}
		q := kmsg.RequestForKey(int16(binary.BigEndian.Uint16(in)))
		if q == nil {
			return errors.New("unknown request")
		}
		q.SetVersion(int16(binary.BigEndian.Uint16(in[2:])))
		body := in[8:]
		if id := int16(binary.BigEndian.Uint16(body)); id > 0 {
			body = body[2+id:]
		} else {
			body = body[2:]
		}
		if q.IsFlexible() {
			body = body[1:]
		}
		var err error
		if u, ok := q.(interface{ UnsafeReadFrom([]byte) error }); ok {
			err = u.UnsafeReadFrom(body)
		} else {
			err = q.ReadFrom(body)
		}
		if err != nil {
			return err
		}
		resp, err := n.answer(q)
		if err == nil && n.synced != nil && q.Key() == 0 {
			err = syncPage(n.synced, 0)
		}
		if err != nil {
			return err
		}
		out = append(out[:0], 0, 0, 0, 0)
		out = append(out, in[4:8]...)
		if q.IsFlexible() && q.Key() != 18 {
			out = append(out, 0)
		}
		out = resp.AppendTo(out)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := c.Write(out); err != nil {
			return err
		}
	}
}

func (n *null) answer(q kmsg.Request) (kmsg.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	resp := q.ResponseKind()
	switch q := q.(type) {
	case *kmsg.ApiVersionsRequest:
		r := resp.(*kmsg.ApiVersionsResponse)
		for key, most := range map[int16]int16{0: 13, 3: 13, 18: 4, 19: 7, 22: 5} {
			k := kmsg.NewApiVersionsResponseApiKey()
			k.ApiKey, k.MaxVersion = key, most
			r.ApiKeys = append(r.ApiKeys, k)
		}
	case *kmsg.InitProducerIDRequest:
		resp.(*kmsg.InitProducerIDResponse).ProducerID = 1
	case *kmsg.CreateTopicsRequest:
		r := resp.(*kmsg.CreateTopicsResponse)
		for _, qt := range q.Topics {
			t := &nullTopic{name: string([]byte(qt.Topic)), ends: make([]int64, qt.NumPartitions)}
			binary.BigEndian.PutUint64(t.id[:], uint64(len(n.topics)+1))
			n.topics[t.name], n.byID[t.id] = t, t
			rt := kmsg.NewCreateTopicsResponseTopic()
			rt.Topic, rt.TopicID = t.name, t.id
			r.Topics = append(r.Topics, rt)
		}
	case *kmsg.MetadataRequest:
		r := resp.(*kmsg.MetadataResponse)
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host, b.Port = 1, n.host, n.port
		r.Brokers, r.ControllerID = append(r.Brokers, b), 1
		for _, qt := range q.Topics {
			t := n.byID[qt.TopicID]
			if qt.Topic != nil {
				t = n.topics[*qt.Topic]
			}
			rt := kmsg.NewMetadataResponseTopic()
			if rt.Topic = qt.Topic; t == nil {
				rt.ErrorCode = 3
				r.Topics = append(r.Topics, rt)
				continue
			}
			rt.Topic, rt.TopicID = &t.name, t.id
			for p := range t.ends {
				rp := kmsg.NewMetadataResponseTopicPartition()
				rp.Partition, rp.Leader, rp.LeaderEpoch, rp.Replicas, rp.ISR = int32(p), 1, 0, []int32{1}, []int32{1}
				rt.Partitions = append(rt.Partitions, rp)
			}
			r.Topics = append(r.Topics, rt)
		}
	case *kmsg.ProduceRequest:
		return resp, n.produce(q, resp.(*kmsg.ProduceResponse))
	default:
		return nil, fmt.Errorf("%T is not served", q)
	}
	return resp, nil
}

func (n *null) produce(q *kmsg.ProduceRequest, r *kmsg.ProduceResponse) error {
	for _, qt := range q.Topics {
		t := n.byID[qt.TopicID]
		if q.Version < 13 {
			t = n.topics[qt.Topic]
		}
		if t == nil {
			return errors.New("unknown topic")
		}
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.name, t.id
		for _, qp := range qt.Partitions {
			b := qp.Records
			if len(b) < 61 || crc32.Checksum(b[21:], n.crc) != binary.BigEndian.Uint32(b[17:]) {
				return errors.New("a batch is damaged")
			}
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.BaseOffset, rp.LogStartOffset = qp.Partition, t.ends[qp.Partition], 0
			t.ends[qp.Partition] += int64(binary.BigEndian.Uint32(b[57:]))
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
	return nil
}
