package broker

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
)

// frozen is a wall clock at the beginning of a second, so that tests know what a limit of a rate lets through.
func frozen(c *Config) { c.Now = func() time.Time { return time.Unix(1_700_000_000, 0) } }

// from dials from one of this machine's addresses.
func from(t *testing.T, ip, addr string) *raw {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		t.Skip(err) // not every system has all of 127.0.0.0/8
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &raw{t: t, nc: nc, format: kmsg.NewRequestFormatter()}
}

// served says whether a connection is answered.
func (r *raw) served() bool {
	r.send(&kmsg.ApiVersionsRequest{})
	_, err := r.receive(&kmsg.ApiVersionsRequest{})
	return err == nil
}

// What is more than all, or a listener, may have waits until there is room.
func TestConnectionsWaitForRoom(t *testing.T) {
	for name, limit := range map[string]func(*Config){
		"broker":   func(c *Config) { c.MaxConnections = 1 },
		"listener": func(c *Config) { c.Listeners[0].MaxConnections = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, listening, limit)
			one, two := tcp(t, b.Addr()), tcp(t, b.Addr())
			if !one.served() {
				t.Fatal("one connection is allowed")
			}
			two.send(&kmsg.ApiVersionsRequest{})
			two.nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := two.receive(&kmsg.ApiVersionsRequest{}); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("a second connection does not wait: %v", err)
			}
			one.nc.Close()
			two.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := two.receive(&kmsg.ApiVersionsRequest{}); err != nil {
				t.Errorf("the place of a closed connection is never free: %v", err)
			}
		})
	}
}

// Connections that come too fast for all, or for a listener, wait.
func TestConnectionCreationRate(t *testing.T) {
	for name, limit := range map[string]func(*Config){
		"broker":   func(c *Config) { c.MaxConnectionCreationRate = 10 },
		"listener": func(c *Config) { c.Listeners[0].MaxConnectionCreationRate = 10 },
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, listening, frozen, limit)
			for i := range 100 {
				if r := tcp(t, b.Addr()); !r.served() {
					t.Fatalf("connection %d of those of ten seconds is not served", i)
				}
			}
			if n := b.metrics.delayed.Load(); n != 0 {
				t.Fatalf("%d connections waited", n)
			}
			began := time.Now()
			if r := tcp(t, b.Addr()); !r.served() || time.Since(began) < 100*time.Millisecond || b.metrics.delayed.Load() != 1 {
				t.Errorf("one more waits %v", time.Since(began))
			}
		})
	}
}

// An address that connects too often is left waiting and then cut off, without a cost for others. The quota is set as any
// administrator sets it.
func TestConnectionQuotaOfAnAddress(t *testing.T) {
	b := start(t, listening, frozen, func(c *Config) { c.MaxConnectionCreationRate = 20 })
	adm := kadm.NewClient(client(t, b))
	ctx := testContext(t)
	alter := func(typ string, name *string, op kadm.AlterClientQuotaOp) error {
		rs, err := adm.AlterClientQuotas(ctx, []kadm.AlterClientQuotaEntry{{Entity: kadm.ClientQuotaEntity{{Type: typ, Name: name}}, Ops: []kadm.AlterClientQuotaOp{op}}})
		if err != nil {
			return err
		}
		return rs[0].Err
	}
	rate := kadm.AlterClientQuotaOp{Key: auth.ConnectionCreationRate, Value: 10}
	for name, err := range map[string]error{
		"of an address": alter("ip", ptr("127.0.0.1"), rate), "of all": alter("ip", nil, kadm.AlterClientQuotaOp{Key: auth.ConnectionCreationRate, Value: 1000}),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"of a user": alter("user", ptr("u"), rate), "of a name": alter("ip", ptr("no address"), rate),
		"half of one": alter("ip", nil, kadm.AlterClientQuotaOp{Key: auth.ConnectionCreationRate, Value: 0.5}),
		"another":     alter("ip", nil, kadm.AlterClientQuotaOp{Key: auth.ProducerByteRate, Value: 1}),
	} {
		if err == nil {
			t.Errorf("%s: a quota that cannot be", name)
		}
	}
	described, err := adm.DescribeClientQuotas(ctx, true, []kadm.DescribeClientQuotaComponent{{Type: "ip", MatchType: kmsg.QuotasMatchTypeAny}})
	if err != nil || len(described) != 2 {
		t.Errorf("%+v %v", described, err)
	}

	for i := range 100 {
		if r := tcp(t, b.Addr()); !r.served() {
			t.Fatalf("connection %d of those of ten seconds is not served", i)
		}
	}
	// However often it tries: what is refused does not count, not for all either, or the next would have to wait for it.
	for range 100 {
		began := time.Now()
		if !tcp(t, b.Addr()).ends() || time.Since(began) < 100*time.Millisecond {
			t.Fatalf("one more ends after %v", time.Since(began))
		}
		if b.metrics.delayed.Load() == 3 {
			break
		}
	}
	for i := range 100 {
		if r := from(t, "127.0.0.2", b.Addr()); !r.served() {
			t.Fatalf("connection %d of another address is not served", i)
		}
	}
	if n := b.metrics.delayed.Load(); n != 3 {
		t.Errorf("%d connections waited", n)
	}
	if err := alter("ip", ptr("127.0.0.1"), kadm.AlterClientQuotaOp{Key: auth.ConnectionCreationRate, Remove: true}); err != nil {
		t.Fatal(err)
	}
	cl := client(t, b, kgo.SeedBrokers(b.Addr()), kgo.Dialer((&netDialer{}).dial))
	if err := cl.Ping(ctx); err != nil {
		t.Errorf("without the quota: %v", err)
	}
}

// A quota is for the address that a name has. It is shown by the name, and kept.
func TestConnectionQuotaOfAName(t *testing.T) {
	fs := vfs.NewMem()
	same := func(c *Config) { c.FS, c.BootID = fs, "boot" }
	b := start(t, listening, frozen, same)
	alter := func(ip string, op kadm.AlterClientQuotaOp) error {
		rs, err := kadm.NewClient(client(t, b)).AlterClientQuotas(testContext(t), []kadm.AlterClientQuotaEntry{{Entity: kadm.ClientQuotaEntity{{Type: "ip", Name: &ip}}, Ops: []kadm.AlterClientQuotaOp{op}}})
		if err != nil {
			return err
		}
		return rs[0].Err
	}
	served := func() (n int) {
		for tcp(t, b.Addr()).served() {
			n++
		}
		return n
	}
	rate := kadm.AlterClientQuotaOp{Key: auth.ConnectionCreationRate, Value: 2}
	if err := errors.Join(alter("localhost", rate), alter("::ffff:127.0.0.1", kadm.AlterClientQuotaOp{Key: auth.ConnectionCreationRate, Value: 5})); err != nil {
		t.Fatal(err)
	}
	if n := served(); n != 20 {
		t.Errorf("%d connections in ten seconds", n)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = start(t, listening, frozen, same)
	if n := served(); n != 20 {
		t.Errorf("after a restart %d connections in ten seconds", n)
	}
	described, err := kadm.NewClient(client(t, b)).DescribeClientQuotas(testContext(t), true, []kadm.DescribeClientQuotaComponent{{Type: "ip", MatchType: kmsg.QuotasMatchTypeExact, MatchName: ptr("localhost")}})
	if err != nil || len(described) != 1 || described[0].Entity[0].Name == nil || *described[0].Entity[0].Name != "localhost" {
		t.Errorf("%+v %v", described, err)
	}
	rate.Remove = true
	if err := alter("localhost", rate); err != nil {
		t.Fatal(err)
	}
	if n := served(); n != 50 {
		t.Errorf("without the quota of the name %d connections in ten seconds", n)
	}
}
