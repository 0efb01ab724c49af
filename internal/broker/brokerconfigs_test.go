package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// allowed counts how many connections an address may have at a time, of as many as tries.
func allowed(t *testing.T, b *Broker, ip string, tries int) int {
	t.Helper()
	n := 0
	var open []*raw
	for range tries {
		r := from(t, ip, b.Addr())
		if open = append(open, r); r.served() {
			n++
		}
	}
	for _, r := range open {
		r.nc.Close()
	}
	// Their places are free once the broker has noticed.
	for {
		b.serving.Lock()
		left, freed := b.seats.all, b.seats.freed
		b.serving.Unlock()
		if left == 0 {
			return n
		}
		select {
		case <-freed:
		case <-time.After(20 * time.Second):
			t.Fatal("connections do not end")
		}
	}
}

// Addresses may have bounds of their own, by name as well.
func TestConnectionOverrides(t *testing.T) {
	b := start(t, listening, func(c *Config) {
		c.MaxConnectionsPerIP, c.MaxConnectionsPerIPOverrides = 2, "localhost:3, ::1:7, 127.0.0.2:0,::ffff:127.0.0.3:1"
	})
	for ip, want := range map[string]int{"127.0.0.1": 3, "127.0.0.2": 0, "127.0.0.3": 1, "127.0.0.4": 2} {
		if n := allowed(t, b, ip, 5); n != want {
			t.Errorf("%s may have %d connections, want %d", ip, n, want)
		}
	}
	b = start(t, listening, func(c *Config) { c.MaxConnectionsPerIP, c.MaxConnectionsPerIPOverrides = -1, "127.0.0.2:1" })
	if n, m := allowed(t, b, "127.0.0.1", 1), allowed(t, b, "127.0.0.2", 2); n != 0 || m != 1 {
		t.Errorf("others may have %d connections, that with a bound %d", n, m)
	}
	for _, c := range []Config{
		{MaxConnectionsPerIP: -1}, {MaxConnectionsPerIP: -2, MaxConnectionsPerIPOverrides: "::1:1"}, {MaxConnectionsPerIPOverrides: "localhost"},
		{MaxConnectionsPerIPOverrides: ":5"}, {MaxConnectionsPerIPOverrides: "localhost:many"}, {MaxConnectionsPerIPOverrides: "localhost:-1"},
		{MaxConnectionsPerIPOverrides: "no host:1"},
	} {
		c.Dir, c.FS, c.Logger = "data", vfs.NewMem(), quiet(t)
		if b, err := Start(context.Background(), c); err == nil {
			b.Close()
			t.Errorf("%d %q: a broker starts", c.MaxConnectionsPerIP, c.MaxConnectionsPerIPOverrides)
		}
	}
}

// The limits of connections may be changed while the broker runs, for it and, which counts less, for all brokers.
func TestLimitsChange(t *testing.T) {
	fs := vfs.NewMem()
	same := func(c *Config) { c.FS, c.BootID, c.MaxConnectionsPerIP = fs, "boot", 4 }
	b := start(t, listening, same)
	adm := kadm.NewClient(client(t, b))
	ctx := testContext(t)
	alter := func(resource, name string, op kadm.IncrementalOp, value string) {
		t.Helper()
		rs, err := adm.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: op, Name: name, Value: &value}}, brokers(resource)...)
		if err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
	}
	expect := func(want int) {
		t.Helper()
		if n := allowed(t, b, "127.0.0.1", 8); n != want {
			t.Errorf("an address may have %d connections, want %d", n, want)
		}
	}
	expect(4)
	alter("", maxConnectionsPerIP, kadm.SetConfig, "6")
	expect(6)
	alter("1", maxConnectionsPerIP, kadm.SetConfig, " 2")
	expect(2)
	alter("1", maxConnectionOverrides, kadm.SetConfig, "localhost:3")
	expect(3)

	// Whoever waits for room has it when there is more.
	alter("", maxConnections, kadm.SetConfig, "1")
	one, two := tcp(t, b.Addr()), tcp(t, b.Addr())
	if !one.served() {
		t.Error("one connection is allowed")
	}
	alter("1", maxConnections, kadm.SetConfig, "2")
	if !two.served() {
		t.Error("a second connection waits for ever")
	}
	one.nc.Close()
	two.nc.Close()
	alter("1", maxConnections, kadm.DeleteConfig, "")
	alter("", maxConnections, kadm.DeleteConfig, "")

	type shown struct {
		value    string
		source   kmsg.ConfigSource
		synonyms int
		readOnly bool
	}
	for _, c := range []struct {
		resource, name string
		want           shown
	}{
		{"1", maxConnectionsPerIP, shown{" 2", kmsg.ConfigSourceDynamicBrokerConfig, 3, false}},
		{"", maxConnectionsPerIP, shown{"6", kmsg.ConfigSourceDynamicDefaultBrokerConfig, 2, false}},
		{"1", maxConnections, shown{"10000", kmsg.ConfigSourceStaticBrokerConfig, 1, false}},
		{"", maxConnections, shown{}},
		{"1", maxConnectionRate, shown{"2147483647", kmsg.ConfigSourceStaticBrokerConfig, 1, false}},
		{"1", "num.partitions", shown{"1", kmsg.ConfigSourceStaticBrokerConfig, 1, true}},
	} {
		q := kmsg.NewPtrDescribeConfigsRequest()
		q.IncludeSynonyms = true
		q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: c.resource}}
		var got shown
		for _, s := range ask[*kmsg.DescribeConfigsResponse](dialRaw(t, b), 4, q).Resources[0].Configs {
			if s.Name == c.name {
				got = shown{*s.Value, s.Source, len(s.ConfigSynonyms), s.ReadOnly}
			}
		}
		if got != c.want {
			t.Errorf("%s of %q is shown as %+v, want %+v", c.name, c.resource, got, c.want)
		}
	}

	// What cannot be is refused, and nothing of it counts.
	for _, c := range []struct{ resource, name, value string }{
		{"1", maxConnections, "0"}, {"1", maxConnections, "many"}, {"1", maxConnectionRate, "0"}, {"1", maxConnectionsPerIP, "-1"},
		{"1", maxConnectionOverrides, "localhost"}, {"1", maxConnectionOverrides, "no host:1"}, {"1", "num.partitions", "5"}, {"1", "no.such", "1"}, {"2", maxConnections, "5"},
	} {
		q := kmsg.NewPtrIncrementalAlterConfigsRequest()
		q.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: c.resource,
			Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: maxConnectionsPerIP, Value: ptr("8")}, {Name: c.name, Value: &c.value}}}}
		if c.name == maxConnectionsPerIP {
			q.Resources[0].Configs = q.Resources[0].Configs[1:]
		}
		if code := ask[*kmsg.IncrementalAlterConfigsResponse](dialRaw(t, b), 1, q).Resources[0].ErrorCode; code != kerr.InvalidRequest.Code && code != kerr.InvalidConfig.Code {
			t.Errorf("%+v: error %d", c, code)
		}
	}
	expect(3)

	// It is kept. AlterConfigs takes back what it does not name.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = start(t, listening, same)
	expect(3)
	q := kmsg.NewPtrAlterConfigsRequest()
	q.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "1",
		Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: maxConnectionRate, Value: ptr("1000")}}}}
	wantCode(t, "AlterConfigs", ask[*kmsg.AlterConfigsResponse](dialRaw(t, b), 1, q).Resources[0].ErrorCode, nil)
	expect(6)
	wantCode(t, "0 without overrides", func() int16 {
		q.Resources[0].Configs[0] = kmsg.AlterConfigsRequestResourceConfig{Name: maxConnectionsPerIP, Value: ptr("0")}
		return ask[*kmsg.AlterConfigsResponse](dialRaw(t, b), 1, q).Resources[0].ErrorCode
	}(), kerr.InvalidRequest)
}

// brokers are the brokers that a resource's name is for.
func brokers(resource string) []int32 {
	if resource == "" {
		return nil
	}
	return []int32{nodeID}
}

// What the broker is given are the defaults of topics, those there are too, also after a restart.
func TestDefaultsOfTopicsChange(t *testing.T) {
	fs := vfs.NewMem()
	same := func(c *Config) { c.FS, c.BootID = fs, "boot" }
	b := start(t, same)
	cl := client(t, b, kgo.ProducerBatchCompression(kgo.NoCompression()))
	adm := kadm.NewClient(cl)
	ctx := testContext(t)
	create := func(name string, settings map[string]*string) {
		t.Helper()
		if _, err := adm.CreateTopic(ctx, 1, 1, settings, name); err != nil {
			t.Fatal(err)
		}
	}
	large := func(topic string) error {
		return cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: []byte("k"), Value: make([]byte, 2000)}).FirstErr()
	}
	alter := func(resource, name string, op kadm.IncrementalOp, value string) {
		t.Helper()
		rs, err := adm.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: op, Name: name, Value: &value}}, brokers(resource)...)
		if err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
	}
	create("plain", nil)
	create("own", map[string]*string{"max.message.bytes": ptr("5000")})
	alter("", "message.max.bytes", kadm.SetConfig, "1000")
	alter("", "log.cleanup.policy", kadm.AppendConfig, "compact")
	for range 2 {
		create("later", nil)
		for topic, want := range map[string]error{"plain": kerr.MessageTooLarge, "later": kerr.MessageTooLarge, "own": nil} {
			if err := large(topic); !errors.Is(err, want) {
				t.Errorf("%s: a large record gets %v", topic, err)
			}
		}
		cs, err := adm.DescribeTopicConfigs(ctx, "later")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs[0].Configs {
			if c.Key == "cleanup.policy" && (c.MaybeValue() != "delete,compact" || c.Source != kmsg.ConfigSourceDynamicDefaultBrokerConfig) {
				t.Errorf("shown as %s of %v", c.MaybeValue(), c.Source)
			}
		}
		if _, err := adm.DeleteTopic(ctx, "later"); err != nil {
			t.Fatal(err)
		}
		cl.Close()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = start(t, same)
		cl = client(t, b, kgo.ProducerBatchCompression(kgo.NoCompression()))
		adm = kadm.NewClient(cl)
	}
	alter("1", "message.max.bytes", kadm.SetConfig, "3000")
	if err := large("plain"); err != nil {
		t.Errorf("this broker's default does not go before that of all: %v", err)
	}
	alter("1", "message.max.bytes", kadm.DeleteConfig, "")
	alter("", "message.max.bytes", kadm.DeleteConfig, "")
	if err := large("plain"); err != nil {
		t.Errorf("without a default: %v", err)
	}
}

// Each setting that may be changed is the broker's once, by a name that Kafka knows.
func TestBrokerSettings(t *testing.T) {
	all := start(t).brokerSettings()
	for i, s := range all {
		if i > 0 && all[i-1].name >= s.name {
			t.Errorf("%s comes after %s", s.name, all[i-1].name)
		}
		if s.check != nil && s.check(s.value) != nil {
			t.Errorf("%s is %q, which it cannot be set to", s.name, s.value)
		}
	}
}
