package table

import (
	"encoding/hex"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// TestWaiterBytes: what Kafka Streams 4.3.1 has written is read and written again.
func TestWaiterBytes(t *testing.T) {
	const key, value = "00000000000003731f6b3500000011",
		"000000000003731f000000000000001400000003696e310000000000000000ffffffffffffffff00000005612c622c630000000000000000"
	ks, vs := waitKeySerde[string]{serde.String}, waiterSerde[string]{serde.String}
	b, _ := hex.DecodeString(key)
	k, err := ks.Decode(b)
	if want := (waitKey[string]{time: 226079, key: "k5", n: 17}); err != nil || k != want {
		t.Errorf("%+v, %v", k, err)
	}
	if b, err = ks.Encode(nil, k); hex.EncodeToString(b) != key || err != nil {
		t.Errorf("%x, %v", b, err)
	}
	b, _ = hex.DecodeString(value)
	v, err := vs.Decode(b)
	if err != nil || v.Time != 226079 || v.Offset != 20 || v.Topic != "in1" || v.Partition != 0 || len(v.Headers) != 0 || v.Value != "a,b,c" {
		t.Errorf("%+v, %v", v, err)
	}
	if b, err = vs.Encode(nil, v); hex.EncodeToString(b) != value || err != nil {
		t.Errorf("%x, %v", b, err)
	}
	v.Headers = []flow.Header{{Key: "h", Value: []byte("1")}, {Key: "null"}}
	b, err = vs.Encode(nil, v)
	if v, _ := vs.Decode(b); err != nil || len(v.Headers) != 2 || string(v.Headers[0].Value) != "1" || v.Headers[1].Value != nil {
		t.Errorf("%+v, %v", v, err)
	}
}
