package stream

import (
	"encoding/hex"
	"testing"
)

// Without a seed the values are well known; with Kafka Streams' they come from its own class.
func TestMurmur3(t *testing.T) {
	for _, test := range []struct {
		text string
		seed uint64
		want string
	}{
		{"", 0, "00000000000000000000000000000000"},
		{"hello", 0, "cbd8a7b341bd9b025b1e906a48ae1d19"},
		{"The quick brown fox jumps over the lazy dog", 0, "e34bbc7bbc071b6c7a433ca9c49a9347"},
		{"", digestSeed, "9d2764a018e329428c3cf3b035938518"},
		{"4", digestSeed, "4b993caf2dba4a004e94385e6491fe99"},
		{"foobar", digestSeed, "e545263cde70bba21e8c9e2fc5c7ed4e"},
		{"0123456789abcdef", digestSeed, "1a6e941ec6a76967d7d82808f505d6b1"},
		{"a-little-bit-longer-string", digestSeed, "81a5a6561e85ba630aacc70b39c2bb10"},
		{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", digestSeed, "c830f1f300cccfc3574b4c3bc32ade0b"},
	} {
		d := murmur3([]byte(test.text), test.seed)
		if got := hex.EncodeToString(d[:]); got != test.want {
			t.Errorf("%q: got %s, want %s", test.text, got, test.want)
		}
	}
}

func TestForeignKeyFormats(t *testing.T) {
	subs, responses := subscriptionSerde[[]byte]{asIs{}}, responseSerde[[]byte]{asIs{}}
	keys := combinedSerde[[]byte, []byte]{asIs{}, asIs{}}
	hash := murmur3([]byte("4"), digestSeed)
	const hashed = "4b993caf2dba4a004e94385e6491fe99"
	code := func(b []byte, err error) string {
		if err != nil {
			return err.Error()
		}
		return hex.EncodeToString(b)
	}
	for _, test := range []struct{ got, want string }{
		{code(subs.Encode(nil, subscription[[]byte]{hash: hash, live: true, order: subscribeIfThereIs, key: []byte("k1"), partition: 2})), "0103" + hashed + "6b3100000002"},
		{code(subs.Encode(nil, subscription[[]byte]{order: unsubscribeAndTell, key: []byte("k1")})), "81016b3100000000"},
		{code(subs.Encode(nil, subscription[[]byte]{order: subscribeAndTell, key: []byte("k1"), partition: -1})), "80026b31"},
		{code(responses.Encode(nil, response[[]byte]{hash: hash, live: true, value: []byte("a"), found: true})), "00" + hashed + "61"},
		{code(responses.Encode(nil, response[[]byte]{})), "80"},
		{code(keys.Encode(nil, combinedKey[[]byte, []byte]{[]byte("abc"), []byte("k1")})), "000000036162636b31"},
		{code(keys.prefix([]byte("x"), []byte("abc"))), "7800000003616263"},
	} {
		if test.got != test.want {
			t.Errorf("got %s, want %s", test.got, test.want)
		}
	}
	for _, bad := range []string{"", "01", "0200", "8104", "0101aa", "81016b31", "8101ffffffff"} {
		b, _ := hex.DecodeString(bad)
		if sub, err := subs.Decode(b); err == nil {
			t.Errorf("%q is read as a subscription: %+v", bad, sub)
		}
	}
	for _, bad := range []string{"", "01", "81", "00aa"} {
		b, _ := hex.DecodeString(bad)
		if r, err := responses.Decode(b); err == nil {
			t.Errorf("%q is read as a response: %+v", bad, r)
		}
	}
	for _, bad := range []string{"", "000000", "00000001", "ffffffff61"} {
		b, _ := hex.DecodeString(bad)
		if k, err := keys.Decode(b); err == nil {
			t.Errorf("%q is read as a key: %+v", bad, k)
		}
	}
}

// What can be read is written again byte for byte.
func FuzzForeignKeyFormats(f *testing.F) {
	f.Add([]byte("\x81\x01k1\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x030123456789abcdefk1\x00\x00\x00\x02"))
	f.Add([]byte("\x000123456789abcdefv"))
	f.Add([]byte("\x00\x00\x00\x03abck1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		subs, responses := subscriptionSerde[[]byte]{asIs{}}, responseSerde[[]byte]{asIs{}}
		keys := combinedSerde[[]byte, []byte]{asIs{}, asIs{}}
		check := func(again []byte, err error) {
			if err != nil || string(again) != string(b) {
				t.Errorf("%x is written as %x, %v", b, again, err)
			}
		}
		if sub, err := subs.Decode(b); err == nil {
			check(subs.Encode(nil, sub))
		}
		if r, err := responses.Decode(b); err == nil {
			check(responses.Encode(nil, r))
		}
		if k, err := keys.Decode(b); err == nil {
			check(keys.Encode(nil, k))
		}
	})
}
