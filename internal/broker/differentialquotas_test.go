package broker

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
)

// TestDifferentialQuotas uses up a quota of topics and one of connections here and on Apache Kafka. The rates are such that
// what they give while the test runs does not matter, so waits are compared in units of ten seconds.
func TestDifferentialQuotas(t *testing.T) {
	kafka := apacheKafka(t)
	b := start(t, listening, func(c *Config) { c.NoAutoCreate = true })
	prefix := strconv.FormatInt(time.Now().UnixNano(), 36) + "-quotas-"
	ours, theirs := newSide(t, b.Addr(), prefix), newSide(t, kafka, prefix)
	for _, s := range []*side{ours, theirs} {
		if got := s.createTopics(7, "there", 3, "", "", false); got != "ok 3 1" {
			t.Fatal(got)
		}
	}
	both := func(what string, do func(s *side) string) {
		t.Helper()
		got, want := do(ours), do(theirs)
		if t.Logf("%s: %s", what, want); got != want {
			t.Errorf("%s: here %s, there %s", what, got, want)
		}
	}
	for _, q := range []struct {
		typ, name, key string
		value          float64
	}{
		{"user", prefix, auth.ControllerMutationRate, 0.5}, {"user", prefix, auth.ConnectionCreationRate, 1}, {"user", prefix, auth.ProducerByteRate, 0.5},
		{"ip", "127.0.0.9", auth.ConnectionCreationRate, 0.5}, {"ip", "127.0.0.9", auth.ConnectionCreationRate, 1 << 31},
		{"ip", "127.0.0.9", auth.ProducerByteRate, 1}, {"group", "g", auth.ProducerByteRate, 1},
		{"ip", "no host", auth.ConnectionCreationRate, 1}, {"ip", "", auth.ConnectionCreationRate, 1}, {"ip", "localhost", auth.ProducerByteRate, 1},
	} {
		both(fmt.Sprint(q), func(s *side) string { return s.alterQuota(q.typ, q.name, q.key, q.value) })
	}

	// A new connection each: one whose quota is used up is not read from for a quarter of an hour.
	asked := func(what string, ask func(s *side) (int16, int32)) {
		t.Helper()
		both(what, func(of *side) string {
			s := newSide(t, of.nc.RemoteAddr().String(), prefix)
			defer s.close()
			s.format = kmsg.NewRequestFormatter(kmsg.FormatterClientID(prefix))
			code, throttle := ask(s)
			return fmt.Sprint(name(code), " throttled for ", (throttle+5_000)/10_000*10, " s")
		})
	}
	create := func(version int16, topic string, n int32, only bool) {
		t.Helper()
		asked(fmt.Sprintf("CreateTopics v%d %s %d only=%v", version, topic, n, only), func(s *side) (int16, int32) {
			q := &kmsg.CreateTopicsRequest{TimeoutMillis: 5000, ValidateOnly: only, Topics: []kmsg.CreateTopicsRequestTopic{{Topic: prefix + topic, NumPartitions: n, ReplicationFactor: 1}}}
			resp := ask[*kmsg.CreateTopicsResponse](s.raw, version, q)
			return resp.Topics[0].ErrorCode, resp.ThrottleMillis
		})
	}
	remove := func(version int16, topic string) {
		t.Helper()
		asked(fmt.Sprintf("DeleteTopics v%d %s", version, topic), func(s *side) (int16, int32) {
			resp := ask[*kmsg.DeleteTopicsResponse](s.raw, version, &kmsg.DeleteTopicsRequest{TimeoutMillis: 5000, TopicNames: []string{prefix + topic}})
			return resp.Topics[0].ErrorCode, resp.ThrottleMillis
		})
	}
	grow := func(version int16, topic string, n int32) {
		t.Helper()
		asked(fmt.Sprintf("CreatePartitions v%d %s %d", version, topic, n), func(s *side) (int16, int32) {
			resp := ask[*kmsg.CreatePartitionsResponse](s.raw, version, &kmsg.CreatePartitionsRequest{TimeoutMillis: 5000, Topics: []kmsg.CreatePartitionsRequestTopic{{Topic: prefix + topic, Count: n}}})
			return resp.Topics[0].ErrorCode, resp.ThrottleMillis
		})
	}
	both("a rate", func(s *side) string { return s.alterQuota("client-id", prefix, auth.ControllerMutationRate, 0.01) })
	create(7, "there", 1, false)
	create(7, "a", 2, true) // counts, though it does nothing
	create(7, "b", 2, false)
	create(6, "b", 2, false)
	create(5, "b", 1, false)
	create(7, "there", 1, false)
	remove(5, "none")
	remove(5, "there")
	grow(3, "there", 5)
	grow(3, "there", 2)
	grow(2, "there", 4)
	remove(4, "there")
	remove(4, "none")

	connections := func(of *side, from string) string {
		const tries = 14
		served := 0
		for range tries {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			nc, err := d.Dial("tcp", of.nc.RemoteAddr().String())
			if err != nil {
				return err.Error()
			}
			nc.SetDeadline(time.Now().Add(20 * time.Second))
			r := &raw{t: t, nc: nc, format: kmsg.NewRequestFormatter()}
			if r.served() {
				served++
			}
			nc.Close()
		}
		// What is cut off takes a second, in which one more may come.
		return fmt.Sprint("about as many as eleven seconds and the rest give: ", served >= 10 && served < tries)
	}
	both("a rate of connections", func(s *side) string { return s.alterQuota("ip", "127.0.0.9", auth.ConnectionCreationRate, 1) })
	both("connections", func(s *side) string { return connections(s, "127.0.0.9") })
	both("no rate of connections", func(s *side) string { return s.alterQuota("ip", "127.0.0.9", auth.ConnectionCreationRate, 0) })
	// A name counts for its address, and is shown as it was given. The cluster is nobody else's.
	both("a rate of a name", func(s *side) string { return s.alterQuota("ip", "localhost", auth.ConnectionCreationRate, 1) })
	both("a name is shown", func(s *side) string {
		q := &kmsg.DescribeClientQuotasRequest{Components: []kmsg.DescribeClientQuotasRequestComponent{{EntityType: "ip", MatchType: kmsg.QuotasMatchTypeAny}}}
		var names []string
		for _, e := range ask[*kmsg.DescribeClientQuotasResponse](s.raw, 1, q).Entries {
			names = append(names, *e.Entity[0].Name)
		}
		return fmt.Sprint(names)
	})
	both("connections of the name's address", func(s *side) string { return connections(s, "127.0.0.1") })
	both("connections of another", func(s *side) string { return connections(s, "127.0.0.9") })
	both("a rate of the address itself", func(s *side) string { return s.alterQuota("ip", "127.0.0.1", auth.ConnectionCreationRate, 1) })
	for _, host := range []string{"localhost", "127.0.0.1", "127.0.0.1"} {
		both("no rate of "+host, func(s *side) string { return s.alterQuota("ip", host, auth.ConnectionCreationRate, 0) })
	}
}

// alterQuota sets a quota, or removes it if it is 0, and waits until it counts. A cluster shows a change before it counts, but
// makes one after another: so two more, of nobody.
func (s *side) alterQuota(typ, entity, key string, value float64) string {
	set := func(typ, entity, key string, value float64) string {
		e := kmsg.AlterClientQuotasRequestEntryEntity{Type: typ, Name: &entity}
		op := kmsg.AlterClientQuotasRequestEntryOp{Key: key, Value: value, Remove: value == 0}
		q := &kmsg.AlterClientQuotasRequest{Entries: []kmsg.AlterClientQuotasRequestEntry{{Entity: []kmsg.AlterClientQuotasRequestEntryEntity{e}, Ops: []kmsg.AlterClientQuotasRequestEntryOp{op}}}}
		return name(ask[*kmsg.AlterClientQuotasResponse](s.raw, 1, q).Entries[0].ErrorCode)
	}
	got := set(typ, entity, key, value)
	if got != "ok" {
		return got
	}
	nobody := s.prefix + "nobody"
	for range 2 {
		s.altered++
		set("client-id", nobody, auth.ProducerByteRate, float64(s.altered))
		s.until("a quota is not shown", func() bool {
			d := &kmsg.DescribeClientQuotasRequest{Components: []kmsg.DescribeClientQuotasRequestComponent{{EntityType: "client-id", Match: &nobody}}}
			es := ask[*kmsg.DescribeClientQuotasResponse](s.raw, 1, d).Entries
			return len(es) == 1 && len(es[0].Values) == 1 && es[0].Values[0].Value == float64(s.altered)
		})
	}
	return got
}
