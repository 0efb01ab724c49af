// Package relational is the application of Kafka Streams' RelationalSmokeTest, of its 4.3 test jar, in Go: articles with the number of
// their comments, by a table grouped by a foreign key and a join of tables; comments with the beginning of their article,
// by a foreign-key join. Java writes its input and judges what it puts out, so topics and bytes are Java's; it judges nothing
// itself.
package relational

import (
	"encoding/binary"
	"fmt"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
)

// AppID is the application's name.
const AppID = "RelationalSmokeTest"

// prefix is how much of an article its comments carry, in bytes: the judge's texts are ASCII.
const prefix = 10

type (
	// Article is a text.
	Article struct {
		Key  int32
		Time int64 // ms since the epoch
		Text string
	}
	// Comment is a text about an article.
	Comment struct {
		Key     int32
		Time    int64 // ms since the epoch
		Text    string
		Article int32
	}
	// CountedArticle is an article and how many comments there are.
	CountedArticle struct {
		Article
		Comments int64
	}
	// PrefixedComment is a comment and the beginning of its article.
	PrefixedComment struct {
		Comment
		Prefix string
	}
)

// The topics: articles in three partitions and comments in five, as in Kafka's own run of the test.
var (
	articles         = stream.NewTopic("in-article", serde.Int32, articleSerde{})
	comments         = stream.NewTopic("in-comment", serde.Int32, commentSerde{})
	countedArticles  = stream.NewTopic("out-augmented-article", serde.Int32, countedSerde{})
	prefixedComments = stream.NewTopic("out-augmented-comment", serde.Int32, prefixedSerde{})
)

// State, and the topics that bring comments to their articles. Counts meet the articles, so they have the same partitions.
var (
	articleStore = state.NewKeyValue("articles", serde.Int32, articleSerde{})
	commentStore = state.NewKeyValue("comments", serde.Int32, commentSerde{})
	countStore   = state.NewKeyValue("comment-counts", serde.Int32, serde.Int64)
	byArticle    = stream.NewRepartition("by-article", serde.Int32, shortSerde{})
	articleOf    = stream.NewForeignKey("article-of", serde.Int32, commentSerde{}, serde.Int32, articleSerde{})
)

// Build is the topology. A wrong one counts a comment too many, for a judge that must notice.
func Build(b *stream.Builder, wrong bool) {
	written, said := b.Table(articles, articleStore), b.Table(comments, commentStore)
	counts := said.GroupBy(byArticle, func(_ int32, c Comment) (int32, int16) { return c.Article, 1 }).Count(countStore)
	written.LeftJoin(counts, func(a Article, n *int64) CountedArticle {
		counted := CountedArticle{Article: a}
		if n != nil {
			counted.Comments = *n
		}
		if wrong && a.Key == 0 {
			counted.Comments++
		}
		return counted
	}).ToStream().To(countedArticles)
	said.JoinForeign(written, articleOf, func(_ int32, c Comment) (int32, bool) { return c.Article, true },
		func(c Comment, a Article) PrefixedComment {
			return PrefixedComment{c, a.Text[:min(prefix, len(a.Text))]}
		},
	).ToStream().To(prefixedComments)
}

// The formats are those of RelationalSmokeTest's serializers: numbers big endian, texts behind their length of four bytes.
type (
	articleSerde  struct{}
	commentSerde  struct{}
	countedSerde  struct{}
	prefixedSerde struct{}
	shortSerde    struct{} // Java's ShortSerializer
)

func (articleSerde) Encode(dst []byte, a Article) ([]byte, error) {
	dst = binary.BigEndian.AppendUint32(dst, uint32(a.Key))
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.Time))
	return appendText(dst, a.Text), nil
}

func (articleSerde) Decode(b []byte) (Article, error) {
	r := reader{b: b}
	a := r.article()
	return a, r.end("article")
}

func (commentSerde) Encode(dst []byte, c Comment) ([]byte, error) {
	dst = binary.BigEndian.AppendUint32(dst, uint32(c.Key))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.Time))
	dst = appendText(dst, c.Text)
	return binary.BigEndian.AppendUint32(dst, uint32(c.Article)), nil
}

func (commentSerde) Decode(b []byte) (Comment, error) {
	r := reader{b: b}
	c := r.comment()
	return c, r.end("comment")
}

func (countedSerde) Encode(dst []byte, a CountedArticle) ([]byte, error) {
	dst, err := articleSerde{}.Encode(dst, a.Article)
	return binary.BigEndian.AppendUint64(dst, uint64(a.Comments)), err
}

func (countedSerde) Decode(b []byte) (CountedArticle, error) {
	r := reader{b: b}
	a := CountedArticle{r.article(), int64(r.uint64())}
	return a, r.end("counted article")
}

func (prefixedSerde) Encode(dst []byte, c PrefixedComment) ([]byte, error) {
	dst, err := commentSerde{}.Encode(dst, c.Comment)
	return appendText(dst, c.Prefix), err
}

func (prefixedSerde) Decode(b []byte) (PrefixedComment, error) {
	r := reader{b: b}
	c := PrefixedComment{r.comment(), r.text()}
	return c, r.end("prefixed comment")
}

func (shortSerde) Encode(dst []byte, v int16) ([]byte, error) {
	return binary.BigEndian.AppendUint16(dst, uint16(v)), nil
}

func (shortSerde) Decode(b []byte) (int16, error) {
	if len(b) != 2 {
		return 0, fmt.Errorf("a short has 2 bytes, not %d", len(b))
	}
	return int16(binary.BigEndian.Uint16(b)), nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
}

// reader takes values from the front of bytes; what is missing is zero and noted.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.short = nil, true
		return make([]byte, min(n, 8))
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) text() string   { return string(r.take(uint64(r.uint32()))) }

func (r *reader) article() Article {
	return Article{int32(r.uint32()), int64(r.uint64()), r.text()}
}

func (r *reader) comment() Comment {
	return Comment{int32(r.uint32()), int64(r.uint64()), r.text(), int32(r.uint32())}
}

func (r *reader) end(what string) error {
	if r.short || len(r.b) > 0 {
		return fmt.Errorf("no %s: it does not end where it must", what)
	}
	return nil
}
