package relational

import (
	"encoding/hex"
	"testing"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

func TestResults(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) { Build(b, false) }, streamtest.TopicPartitions("in-article", 3),
		streamtest.TopicPartitions("in-comment", 5), streamtest.TopicPartitions("out-augmented-article", 3), streamtest.TopicPartitions("out-augmented-comment", 5))
	written, said := streamtest.In(d, articles), streamtest.In(d, comments)
	for k := range int32(3) {
		written.Send(k, Article{k, int64(k), "an article of some length"})
	}
	for k := range int32(30) {
		said.Send(k, Comment{k, int64(k), "a comment", k % 2})
		if k == 20 {
			d.Restart()
		}
	}
	counts := map[int32]int64{}
	for _, r := range streamtest.Out(d, countedArticles).All() {
		counts[r.Key] = r.Value.Comments
	}
	if len(counts) != 3 || counts[0] != 15 || counts[1] != 15 || counts[2] != 0 {
		t.Errorf("comments: %v, want 15, 15 and 0", counts)
	}
	prefixes := map[int32]string{}
	for _, r := range streamtest.Out(d, prefixedComments).All() {
		prefixes[r.Key] = r.Value.Prefix
	}
	if len(prefixes) != 30 || prefixes[29] != "an article" {
		t.Errorf("%d comments have their article, the last has %q", len(prefixes), prefixes[29])
	}
}

func TestBytes(t *testing.T) {
	bytes(t, articleSerde{}, Article{1, 2, "ab"}, "00000001"+"0000000000000002"+"000000026162")
	bytes(t, commentSerde{}, Comment{1, 2, "ab", 3}, "00000001"+"0000000000000002"+"000000026162"+"00000003")
	bytes(t, countedSerde{}, CountedArticle{Article{1, 2, ""}, 3}, "00000001"+"0000000000000002"+"00000000"+"0000000000000003")
	bytes(t, prefixedSerde{}, PrefixedComment{Comment{1, 2, "", 3}, "ab"}, "00000001"+"0000000000000002"+"00000000"+"00000003"+"000000026162")
	bytes(t, shortSerde{}, -1, "ffff")
}

// bytes holds a value against its bytes, and refuses each that are cut short or go on.
func bytes[T comparable](t *testing.T, s serde.Serde[T], v T, want string) {
	t.Helper()
	b, err := s.Encode(nil, v)
	if got := hex.EncodeToString(b); err != nil || got != want {
		t.Errorf("%v is %s (%v), want %s", v, got, err, want)
	}
	if back, err := s.Decode(b); err != nil || back != v {
		t.Errorf("%s is %v (%v), want %v", want, back, err, v)
	}
	for n := range b {
		if back, err := s.Decode(b[:n]); err == nil {
			t.Errorf("%d bytes of %s are %v", n, want, back)
		}
	}
	if back, err := s.Decode(append(b, 0)); err == nil {
		t.Errorf("%s and a byte is %v", want, back)
	}
}
