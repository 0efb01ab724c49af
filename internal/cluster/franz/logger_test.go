package franz

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestLogger: what kgo says again and again is logged now and then; anything else at once.
func TestLogger(t *testing.T) {
	var out bytes.Buffer
	l := newLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	now := time.Unix(0, 0)
	l.now = func() time.Time { return now }
	refused := errors.New("connection refused")
	for i := range 25 {
		l.Log(kgo.LogLevelWarn, "unable to open", "addr", "a:1", "err", refused, "attempt", i)
		l.Log(kgo.LogLevelInfo, "told each time")
		now = now.Add(time.Second)
	}
	l.Log(kgo.LogLevelWarn, "unable to open", "addr", "a:2", "err", refused)
	l.Log(kgo.LogLevelError, "unable to open", "addr", "a:1", "err", errors.New("timed out"))
	var got []string
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, "told each time") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		`level=WARN msg="kafka: unable to open" addr=a:1 err="connection refused" attempt=0`,
		`level=WARN msg="kafka: unable to open" addr=a:1 err="connection refused" attempt=10 again=9`,
		`level=WARN msg="kafka: unable to open" addr=a:1 err="connection refused" attempt=20 again=9`,
		`level=WARN msg="kafka: unable to open" addr=a:2 err="connection refused"`,
		`level=ERROR msg="kafka: unable to open" addr=a:1 err="timed out"`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if n := strings.Count(out.String(), "told each time"); n != 25 {
		t.Errorf("%d of 25 other lines", n)
	}
}
