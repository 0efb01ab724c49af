package broker

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
	"github.com/moldau/moldau/internal/broker/log"
)

const (
	// maxFetchBytes bounds one response (fetch.max.bytes).
	maxFetchBytes = 55 << 20
	// maxFetchWait bounds the wait of one request, whatever the client asks for.
	maxFetchWait = 5 * time.Minute
	// maxAnswers bounds the records that are in memory to be sent, of all clients, and leastAnswer what a client gets when there
	// are as many. Kafka sends them from files.
	maxAnswers  = 256 << 20
	leastAnswer = 64 << 10
)

// answers counts the bytes of records that are in memory to be sent.
type answers struct {
	most int64
	held atomic.Int64
}

// reserve returns how much of n bytes may be read.
func (a *answers) reserve(n int) int {
	for {
		held := a.held.Load()
		may := min(int64(n), max(a.most-held, leastAnswer))
		if a.held.CompareAndSwap(held, held+may) {
			return int(may)
		}
	}
}

// fetchResult is what a fetch returns of one partition.
type fetchResult struct {
	log.Fetched
	part *fetchPart
	err  *kerr.Error
	// diverged is set if the client's log and ours part ways: where ours ends in the epoch the client read last.
	diverged     bool
	divergeEpoch int32
	divergeEnd   int64
}

// fetch answers on the writer's time: it may have to wait for records.
func (b *Broker) fetch(r *request, q *kmsg.FetchRequest) reply {
	return reply{wait: func(ctx context.Context) kmsg.Response {
		f, err := b.sessions.open(q, b.cfg.Now())
		resp := &fetchResponse{FetchResponse: response[*kmsg.FetchResponse](q)}
		if err != nil {
			resp.ErrorCode = err.Code
			return resp
		}
		committed := q.IsolationLevel == 1
		if !b.awaitRecords(ctx, r, q, f.parts, committed) {
			return nil
		}
		resp.from = &b.answers
		resp.results, resp.size = b.read(r, q, f.parts, committed)
		r.throttle(resp, auth.ConsumerByteRate, float64(resp.size))
		if f.session != nil {
			resp.SessionID = f.session.id
			if f.incremental {
				resp.results = news(resp.results)
			}
			for i := range resp.results {
				r := &resp.results[i]
				r.part.toldHW, r.part.toldStart = r.HighWatermark, r.LogStart
				if r.err != nil {
					r.part.toldHW = -1
				}
			}
			f.session.told(resp.results)
		}
		return resp
	}}
}

// news keeps the results that a client in a session does not know yet.
func news(results []fetchResult) []fetchResult {
	kept := results[:0]
	for _, r := range results {
		if r.Bytes > 0 || r.err != nil || r.diverged || r.HighWatermark != r.part.toldHW || r.LogStart != r.part.toldStart {
			kept = append(kept, r)
		}
	}
	return kept
}

// resolve finds the log of a partition and checks what the client believes of it.
func (b *Broker) resolve(r *request, part *fetchPart, byID bool) (*log.Partition, *kerr.Error) {
	t, unknown := b.catalog.asked(byID, part.name, part.id)
	if !r.mayRead(t, byID, part.name) {
		return nil, kerr.TopicAuthorizationFailed
	}
	p := t.partition(part.partition)
	if p == nil {
		return nil, unknown
	}
	if err := checkLeaderEpoch(p, part.leaderEpoch); err != nil {
		return nil, err.(*kerr.Error)
	}
	return p, nil
}

// awaitRecords waits until there is enough to answer with, or an error to tell, or the client's time is over. It returns
// false if the connection ends.
func (b *Broker) awaitRecords(ctx context.Context, r *request, q *kmsg.FetchRequest, parts []fetchPart, committed bool) bool {
	failed := false
	enough := func() bool {
		total := int64(0)
		for i := range parts {
			part := &parts[i]
			p, err := b.resolve(r, part, q.Version >= 13)
			if err != nil {
				failed = true
				return true
			}
			if n := p.Available(part.offset, committed); n > 0 {
				total += min(n, int64(part.maxBytes))
			} else if start, hw, _ := p.Offsets(); part.offset < start || part.offset > hw {
				return true
			}
			if _, _, diverged := divergence(p, part); diverged {
				return true
			}
		}
		return total >= int64(q.MinBytes)
	}
	wait := min(millis(q.MaxWaitMillis), maxFetchWait)
	if wait <= 0 || len(parts) == 0 || enough() && !failed {
		return true
	}
	if failed {
		// As in Kafka what does not exist, or is not for the client, is told of with the rest, and at once if there is nothing else.
		parts = slices.DeleteFunc(slices.Clone(parts), func(part fetchPart) bool {
			_, err := b.resolve(r, &part, q.Version >= 13)
			return err != nil && err != kerr.FencedLeaderEpoch && err != kerr.UnknownLeaderEpoch
		})
		if len(parts) == 0 || enough() {
			return true
		}
	}
	w := log.NewWaiter()
	for i := range parts {
		if p, err := b.resolve(r, &parts[i], q.Version >= 13); err == nil {
			p.Watch(committed, w)
			defer p.Unwatch(w)
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for !enough() {
		select {
		case <-w.C:
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// divergence says where our log ends in the epoch a client read last, if it has read further.
func divergence(p *log.Partition, part *fetchPart) (epoch int32, end int64, diverged bool) {
	if part.lastEpoch < 0 {
		return 0, 0, false
	}
	epoch, end = p.EndOffsetForEpoch(part.lastEpoch)
	return epoch, end, end >= 0 && (epoch < part.lastEpoch || end < part.offset)
}

// wanted is how much a fetch of up to most bytes may return by the limits of its partitions.
func wanted(parts []fetchPart, most int) int {
	want := 0
	for i := range parts {
		want = min(most, want+min(most, max(0, int(parts[i].maxBytes))))
	}
	return want
}

// read reads what fits into one response, and returns how many bytes of records that are. The first batch is returned however
// large it is: a client must get on.
func (b *Broker) read(req *request, q *kmsg.FetchRequest, parts []fetchPart, committed bool) (results []fetchResult, size int) {
	results = make([]fetchResult, len(parts))
	left, minOne := maxFetchBytes, true
	if q.MaxBytes >= 0 {
		left = min(left, int(q.MaxBytes))
	}
	want := wanted(parts, left)
	reserved := b.answers.reserve(want)
	if reserved < want {
		left = reserved
	}
	defer func() { b.answers.held.Add(int64(size - reserved)) }()
	for i := range parts {
		r := &results[i]
		r.part = &parts[i]
		var p *log.Partition
		if p, r.err = b.resolve(req, r.part, q.Version >= 13); r.err != nil {
			r.HighWatermark, r.LastStable, r.LogStart = -1, -1, -1
			continue
		}
		if r.divergeEpoch, r.divergeEnd, r.diverged = divergence(p, r.part); r.diverged {
			r.LogStart, r.HighWatermark, r.LastStable = p.Offsets()
			continue
		}
		limit := max(0, min(left-size, int(r.part.maxBytes)))
		f, err := p.Read(r.part.offset, limit, committed, minOne)
		r.Fetched = f
		if err != nil {
			r.err = kerr.UnknownServerError
			if c := code(err); c != r.err.Code {
				r.err = kerr.TypedErrorForCode(c)
			} else {
				b.slog.Error("a partition cannot be read", "partition", p.String(), "offset", r.part.offset, "err", err)
			}
			r.Batches, r.Bytes, r.Aborted = nil, 0, nil
			r.HighWatermark, r.LastStable, r.LogStart = -1, -1, -1
			continue
		}
		if f.Bytes > 0 {
			minOne = false
			size += f.Bytes
		}
	}
	return results, size
}
