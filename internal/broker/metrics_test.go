package broker

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMetrics(t *testing.T) {
	b := start(t)
	cl := client(t, b)
	if err := cl.ProduceSync(testContext(t), kgo.StringRecord("v")).FirstErr(); err == nil {
		t.Fatal("a record without a topic")
	}
	if err := cl.ProduceSync(testContext(t), &kgo.Record{Topic: "t", Value: make([]byte, 1000)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := b.WriteMetrics(&out); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^(# (HELP|TYPE) .*|[a-z_]+(\{request="\w+"\})? [0-9.e+-]+)$`)
	for _, l := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if !line.MatchString(l) {
			t.Errorf("not the text format: %q", l)
		}
	}
	for _, want := range []string{"moldau_broker_topics 1\n", "moldau_broker_partitions 1\n", `moldau_broker_requests_total{request="Produce"} 1` + "\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
}
