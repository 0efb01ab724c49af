// Command go checks Go's other Kafka clients against a broker. It is a module of its own: Moldau does not depend on them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
)

var (
	bootstrap = os.Getenv("BOOTSTRAP")
	run       = os.Getenv("RUN")
)

const records = 300

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	check := checkSarama
	if len(os.Args) > 1 && os.Args[1] == "segmentio" {
		check = checkSegmentio
	}
	said, err := check(ctx)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(said)
}

func want() []string {
	var out []string
	for i := range records {
		out = append(out, fmt.Sprintf("v%04d", i))
	}
	return out
}

func same(what string, got, want []string) error {
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s: %d records of %d, or others", what, len(got), len(want))
	}
	return nil
}

// members is a group's member: it collects values until there are enough.
type member struct {
	got  []string
	most int
	done context.CancelFunc
}

func (*member) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for {
		select {
		case r, ok := <-c.Messages():
			if !ok {
				return nil
			}
			lock <- struct{}{}
			m.got = append(m.got, string(r.Value))
			full := len(m.got) >= m.most
			<-lock
			s.MarkMessage(r, "")
			if full {
				s.Commit()
				m.done()
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

// lock guards what claims of several partitions share.
var lock = make(chan struct{}, 1)

func saramaRead(ctx context.Context, topic, group string, most int) ([]string, error) {
	c := sarama.NewConfig()
	c.Version = sarama.V3_6_0_0
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.IsolationLevel = sarama.ReadCommitted
	g, err := sarama.NewConsumerGroup([]string{bootstrap}, group, c)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &member{most: most, done: cancel}
	if err := g.Consume(ctx, []string{topic}, m); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return m.got, nil
}

func checkSarama(ctx context.Context) (string, error) {
	c := sarama.NewConfig()
	c.Version = sarama.V3_6_0_0
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Idempotent = true
	c.Producer.Compression = sarama.CompressionZSTD
	c.Net.MaxOpenRequests = 1
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, c)
	if err != nil {
		return "", err
	}
	defer admin.Close()
	for _, topic := range []string{run, run + "-tx"} {
		if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false); err != nil {
			return "", err
		}
	}
	p, err := sarama.NewSyncProducer([]string{bootstrap}, c)
	if err != nil {
		return "", err
	}
	for _, v := range want() {
		if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: run, Key: sarama.StringEncoder(v[len(v)-1:]), Value: sarama.StringEncoder(v)}); err != nil {
			return "", err
		}
	}
	p.Close()
	got, err := saramaRead(ctx, run, run, records)
	if err := errors.Join(err, same("group", got, want())); err != nil {
		return "", err
	}
	quiet, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if got, err := saramaRead(quiet, run, run, 1); err != nil || len(got) > 0 {
		return "", fmt.Errorf("%d records are read twice: %w", len(got), err)
	}
	c.Producer.Transaction.ID = run
	t, err := sarama.NewSyncProducer([]string{bootstrap}, c)
	if err != nil {
		return "", err
	}
	for _, commit := range []bool{true, false} {
		if err := t.BeginTxn(); err != nil {
			return "", err
		}
		if _, _, err := t.SendMessage(&sarama.ProducerMessage{Topic: run + "-tx", Value: sarama.StringEncoder(fmt.Sprint(commit))}); err != nil {
			return "", err
		}
		end := t.AbortTxn
		if commit {
			end = t.CommitTxn
		}
		if err := end(); err != nil {
			return "", err
		}
	}
	t.Close()
	got, err = saramaRead(ctx, run+"-tx", run+"-rc", 1)
	if err := errors.Join(err, same("transactions", got, []string{"true"})); err != nil {
		return "", err
	}
	return "sarama: admin, idempotent producer, zstd, group, transactions", errors.Join(admin.DeleteTopic(run), admin.DeleteTopic(run+"-tx"))
}

func checkSegmentio(ctx context.Context) (string, error) {
	cl := &kafka.Client{Addr: kafka.TCP(bootstrap)}
	if _, err := cl.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: run, NumPartitions: 3, ReplicationFactor: 1}}}); err != nil {
		return "", err
	}
	w := &kafka.Writer{Addr: kafka.TCP(bootstrap), Topic: run, RequiredAcks: kafka.RequireAll, Compression: kafka.Lz4, BatchTimeout: 5 * time.Millisecond}
	var ms []kafka.Message
	for _, v := range want() {
		ms = append(ms, kafka.Message{Key: []byte(v[len(v)-1:]), Value: []byte(v)})
	}
	// Metadata of a topic that is new takes a moment on any cluster.
	for {
		err := w.WriteMessages(ctx, ms...)
		if err == nil {
			break
		}
		if !errors.Is(err, kafka.UnknownTopicOrPartition) && !errors.Is(err, kafka.LeaderNotAvailable) {
			return "", err
		}
	}
	w.Close()
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap}, GroupID: run, Topic: run, StartOffset: kafka.FirstOffset, MaxWait: 200 * time.Millisecond})
	var got []string
	for len(got) < records {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return "", err
		}
		got = append(got, string(m.Value))
	}
	if err := errors.Join(r.Close(), same("group", got, want())); err != nil {
		return "", err
	}
	_, err := cl.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{run}})
	return "segmentio: admin, lz4, group", err
}
