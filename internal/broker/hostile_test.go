package broker

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// closes sends bytes and reports whether the broker answers by closing.
func closes(t testing.TB, b *Broker, in []byte) bool {
	t.Helper()
	nc, err := b.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := nc.Write(in); err != nil {
		return true
	}
	_, err = io.ReadFull(nc, make([]byte, 1))
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatal("neither an answer nor an end")
	}
	return err != nil
}

func frame(body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// What is no request ends its own connection and nothing else.
func TestHostileFrames(t *testing.T) {
	b := start(t)
	for name, in := range map[string][]byte{
		"negative length":      {0xff, 0xff, 0xff, 0xff},
		"huge length":          {0x7f, 0xff, 0xff, 0xff, 0, 0},
		"unknown key":          frame(0x03, 0xe7, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"inter-broker key":     frame(0, 4, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"produce version 2":    frame(0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff),
		"future version":       frame(0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff),
		"client id too long":   frame(0, 18, 0, 0, 0, 0, 0, 1, 0x7f, 0xff),
		"tag bomb":             frame(0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"array bomb":           frame(0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff),
		"HTTP":                 []byte("GET / HTTP/1.1\r\nHost: moldau\r\n\r\n"),
		"cut in the middle":    frame(0, 18, 0, 0, 0, 0)[:9],
		"TLS":                  {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03},
		"body missing":         frame(0, 11, 0, 5, 0, 0, 0, 1, 0xff, 0xff),
		"nothing but a header": frame(0, 8, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0),
	} {
		if name == "cut in the middle" {
			continue // waits for the rest
		}
		if !closes(t, b, in) {
			t.Errorf("%s: the connection goes on", name)
		}
	}
	r := dialRaw(t, b)
	if resp := ask[*kmsg.ApiVersionsResponse](r, 4, &kmsg.ApiVersionsRequest{ClientSoftwareName: "a", ClientSoftwareVersion: "1"}); resp.ErrorCode != 0 {
		t.Errorf("after all that: %v", kerr.ErrorForCode(resp.ErrorCode))
	}
}

func TestApiVersions(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	resp := ask[*kmsg.ApiVersionsResponse](r, 4, &kmsg.ApiVersionsRequest{ClientSoftwareName: "kgo", ClientSoftwareVersion: "1.0"})
	for _, k := range resp.ApiKeys {
		if kmsg.RequestForKey(k.ApiKey) == nil {
			t.Errorf("key %d is not known", k.ApiKey)
		}
		if k.ApiKey == keyProduce && (k.MinVersion != 0 || k.MaxVersion != 13) {
			t.Errorf("produce %d to %d: old clients of librdkafka drop compression unless it is 0 to 13", k.MinVersion, k.MaxVersion)
		}
	}
	if !slices.ContainsFunc(resp.FinalizedFeatures, func(f kmsg.ApiVersionsResponseFinalizedFeature) bool {
		return f.Name == "transaction.version" && f.MaxVersionLevel == 2
	}) || resp.FinalizedFeaturesEpoch < 0 {
		t.Errorf("clients will not use version 2 of transactions: %+v at %d", resp.FinalizedFeatures, resp.FinalizedFeaturesEpoch)
	}
	wantCode(t, "a name with a space", ask[*kmsg.ApiVersionsResponse](r, 3, &kmsg.ApiVersionsRequest{ClientSoftwareName: "a b", ClientSoftwareVersion: "1"}).ErrorCode, kerr.InvalidRequest)

	// A version from the future is answered in version 0, with what there is.
	q := kmsg.NewPtrApiVersionsRequest()
	q.Version = 4
	in := r.format.AppendRequest(nil, q, 77)
	binary.BigEndian.PutUint16(in[6:], 99)
	r.nc.Write(in)
	v0 := kmsg.NewPtrApiVersionsRequest()
	future, err := r.receive(v0)
	if err != nil {
		t.Fatal(err)
	}
	if f := future.(*kmsg.ApiVersionsResponse); f.ErrorCode != kerr.UnsupportedVersion.Code || len(f.ApiKeys) == 0 {
		t.Errorf("%v with %d keys", kerr.ErrorForCode(f.ErrorCode), len(f.ApiKeys))
	}
}

// plausible fills a request with values that hit what exists now and then.
func plausible(r *rand.Rand, v reflect.Value, field string) {
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(4) == 0 {
			v.SetZero()
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		plausible(r, v.Elem(), field)
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "UnknownTags" && name != "Version" {
				plausible(r, v.Field(i), name)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if field == "Records" && r.IntN(2) == 0 {
				v.SetBytes(batch{int64(r.IntN(3)) - 1, int16(r.IntN(3)), int32(r.IntN(3)), r.IntN(2) == 0, []string{"v"}}.encode())
				return
			}
			v.SetBytes([]byte("bytes")[:r.IntN(6)])
			return
		}
		n := r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			plausible(r, v.Index(i), field)
		}
	case reflect.Array:
		if r.IntN(2) == 0 {
			for i := range v.Len() {
				plausible(r, v.Index(i), field)
			}
		}
	case reflect.String:
		words := []string{"t", "u", "g", "id", "", "member", "consumer", "range", "cleanup.policy", "compact", "retention.ms", "1", "__consumer_offsets", "bad name", "Ongoing"}
		v.SetString(words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		ns := []int64{-2, -1, 0, 0, 1, 1, 2, 5, 100}
		n := ns[r.IntN(len(ns))]
		switch field {
		case "MaxWaitMillis":
			n = int64(r.IntN(3))
		case "SessionTimeoutMillis", "TransactionTimeoutMillis":
			n = 1000
		case "RebalanceTimeoutMillis":
			n = 50
		}
		v.SetInt(n)
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(uint64(r.IntN(3)))
	case reflect.Float64:
		v.SetFloat(r.Float64())
	default:
		panic("plausible: " + v.Kind().String())
	}
}

// Every request in every version, with plausible content in any order, gets an answer of its version or the end of the
// connection, and never a bug.
func TestAnyRequest(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 1
	}
	for seed := range uint64(seeds) {
		logger, bugs := watched(t)
		b := start(t, func(c *Config) {
			c.MinSessionTimeout = 10 * time.Millisecond
			c.Logger = logger
		})
		anyRequests(t, b, rand.New(rand.NewPCG(seed, 1)), 1500)
		if n := bugs.Load(); n > 0 {
			t.Fatalf("seed %d: %d requests hit a bug", seed, n)
		}
	}
}

func anyRequests(t testing.TB, b *Broker, r *rand.Rand, n int) {
	keys := make([]int16, 0, len(b.apis))
	for k := range b.apis {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	dialRaw(t, b).createTopic("t", 2)
	var c *raw
	for range n {
		if c == nil {
			c = dialRaw(t, b)
			c.nc.SetDeadline(time.Now().Add(20 * time.Second))
		}
		key := keys[r.IntN(len(keys))]
		a := b.apis[key]
		q := kmsg.RequestForKey(key)
		version := max(a.min, a.servedMin) + int16(r.IntN(int(a.max-max(a.min, a.servedMin))+1))
		q.SetVersion(version)
		plausible(r, reflect.ValueOf(q).Elem(), "")
		if p, ok := q.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
			p.Acks = -1 // has no answer to wait for
		}
		c.send(q)
		if _, err := c.receive(q); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatalf("%T version %d is not answered: %+v", q, version, q)
			}
			c = nil // refused as a whole
		}
	}
}

func FuzzConnection(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 5))
	format := kmsg.NewRequestFormatter(kmsg.FormatterClientID("fuzz"))
	probe := Broker{}
	for key, a := range probe.serverAPIs() {
		for v := max(a.min, a.servedMin); v <= a.max; v++ {
			q := kmsg.RequestForKey(key)
			q.SetVersion(v)
			plausible(r, reflect.ValueOf(q).Elem(), "")
			f.Add(format.AppendRequest(nil, q, 1))
		}
	}
	logger, bugs := watched(f)
	b := start(f, func(c *Config) { c.Logger = logger })
	dialRaw(f, b).createTopic("t", 2)
	f.Fuzz(func(t *testing.T, in []byte) {
		nc, err := b.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(5 * time.Second))
		nc.Write(in)
		nc.SetReadDeadline(time.Now().Add(time.Millisecond))
		io.Copy(io.Discard, nc)
		nc.Close()
		if bugs.Load() > 0 {
			t.Fatalf("a bug: %x", in)
		}
	})
}
