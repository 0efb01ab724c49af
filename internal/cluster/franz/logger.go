package franz

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// logger hands kgo's messages to slog. While a cluster cannot be reached, every client of a process says so several times a
// second; of lines that say the same one in quietTime is let through, with how many it stands for.
type logger struct {
	to  *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	said map[string]*said
}

// said is a line that was logged, and how often it has come again since.
type said struct {
	at    time.Time
	again int
}

const (
	quietTime = 10 * time.Second
	saidMost  = 100 // lines that are kept in mind
)

func newLogger(to *slog.Logger) *logger {
	return &logger{to: to, now: time.Now, said: map[string]*said{}}
}

var levels = [...]slog.Level{kgo.LogLevelError: slog.LevelError, kgo.LogLevelWarn: slog.LevelWarn, kgo.LogLevelInfo: slog.LevelInfo, kgo.LogLevelDebug: slog.LevelDebug}

// Level hides kgo's information messages unless debugging is on: it writes several per transaction.
func (l *logger) Level() kgo.LogLevel {
	if l.to.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelDebug
	}
	return kgo.LogLevelWarn
}

func (l *logger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if level == kgo.LogLevelError || level == kgo.LogLevelWarn {
		again, ok := l.lets(msg, keyvals)
		if !ok {
			return
		}
		if again > 0 {
			keyvals = append(keyvals[:len(keyvals):len(keyvals)], "again", again)
		}
	}
	l.to.Log(context.Background(), levels[level], "kafka: "+msg, keyvals...)
}

// lets says whether a line is to be logged, and how often it has been left out. Lines say the same if they have the same message,
// address and error: numbers of attempts and the like differ each time.
func (l *logger) lets(msg string, keyvals []any) (again int, ok bool) {
	key := msg
	for i := 0; i+1 < len(keyvals); i += 2 {
		if k := keyvals[i]; k == "addr" || k == "err" {
			key += fmt.Sprintf("\x00%v", keyvals[i+1])
		}
	}
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.said[key]
	if s != nil && now.Sub(s.at) < quietTime {
		s.again++
		return 0, false
	}
	if s == nil {
		if len(l.said) >= saidMost {
			clear(l.said)
		}
		s = &said{}
		l.said[key] = s
	}
	again = s.again
	*s = said{at: now}
	return again, true
}
