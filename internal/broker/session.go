package broker

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// maxSessions bounds the fetch sessions (max.incremental.fetch.session.cache.slots).
	maxSessions = 1000
	// sessionIdle is how long a session is safe from being evicted for another.
	sessionIdle = 2 * time.Minute

	fullEpoch  = 0  // asks for everything, and for a session
	finalEpoch = -1 // asks for everything, and for no session
)

// fetchKey names a partition in a fetch request: by id from version 13, by name before.
type fetchKey struct {
	id        [16]byte
	name      string
	partition int32
}

// fetchPart is one partition a client fetches: where it reads, and within a session what it was told last.
type fetchPart struct {
	fetchKey
	offset      int64
	maxBytes    int32
	leaderEpoch int32
	lastEpoch   int32

	toldHW, toldStart int64 // -1: nothing yet, or an error
}

// session is what a client need not repeat from fetch to fetch (KIP-227).
type session struct {
	mu    sync.Mutex
	id    int32
	epoch int32 // of the next request
	byID  bool
	parts []*fetchPart
	index map[fetchKey]*fetchPart

	used time.Time // guarded by sessions.mu
	size int       // guarded by sessions.mu
}

// sessions holds the fetch sessions.
type sessions struct {
	mu   sync.Mutex
	byID map[int32]*session
}

func newSessions() *sessions { return &sessions{byID: map[int32]*session{}} }

// fetching is a fetch request with its session resolved. Its parts are its own.
type fetching struct {
	session     *session // nil: none
	incremental bool
	parts       []fetchPart
}

// open resolves the session of a request.
func (s *sessions) open(q *kmsg.FetchRequest, now time.Time) (fetching, *kerr.Error) {
	byID := q.Version >= 13
	if q.Version < 7 || q.SessionEpoch == fullEpoch || q.SessionEpoch == finalEpoch {
		if q.Version >= 7 && q.SessionID != 0 {
			s.remove(q.SessionID)
		}
		f := fetching{parts: requestParts(q)}
		if q.Version >= 7 && q.SessionEpoch == fullEpoch && len(f.parts) > 0 {
			f.session = s.create(f.parts, byID, now)
		}
		return f, nil
	}
	ses := s.use(q.SessionID, now)
	if ses == nil {
		return fetching{}, kerr.FetchSessionIDNotFound
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	switch {
	case ses.epoch != q.SessionEpoch:
		return fetching{}, kerr.InvalidFetchSessionEpoch
	case ses.byID != byID:
		return fetching{}, kerr.FetchSessionTopicIDError
	}
	ses.update(q)
	if len(ses.parts) == 0 {
		s.remove(ses.id)
		return fetching{}, nil
	}
	ses.epoch = nextEpoch(ses.epoch)
	s.resize(ses)
	f := fetching{session: ses, incremental: true, parts: make([]fetchPart, len(ses.parts))}
	for i, p := range ses.parts {
		f.parts[i] = *p
	}
	return f, nil
}

func nextEpoch(e int32) int32 {
	if e == 1<<31-1 {
		return 1
	}
	return e + 1
}

func requestParts(q *kmsg.FetchRequest) []fetchPart {
	n := 0
	for i := range q.Topics {
		n += len(q.Topics[i].Partitions)
	}
	parts := make([]fetchPart, 0, n)
	for i := range q.Topics {
		t := &q.Topics[i]
		for j := range t.Partitions {
			qp := &t.Partitions[j]
			parts = append(parts, fetchPart{
				fetchKey: fetchKey{t.TopicID, t.Topic, qp.Partition},
				offset:   qp.FetchOffset, maxBytes: qp.PartitionMaxBytes, leaderEpoch: qp.CurrentLeaderEpoch, lastEpoch: qp.LastFetchedEpoch,
				toldHW: -1, toldStart: -1,
			})
		}
	}
	return parts
}

// update applies what an incremental request changes.
func (s *session) update(q *kmsg.FetchRequest) {
	for _, p := range requestParts(q) {
		if known := s.index[p.fetchKey]; known != nil {
			p.toldHW, p.toldStart = known.toldHW, known.toldStart
			*known = p
			continue
		}
		s.add(p)
	}
	forgotten := false
	for _, t := range q.ForgottenTopics {
		for _, p := range t.Partitions {
			k := fetchKey{t.TopicID, t.Topic, p}
			forgotten = forgotten || s.index[k] != nil
			delete(s.index, k)
		}
	}
	if !forgotten {
		return
	}
	kept := s.parts[:0]
	for _, p := range s.parts {
		if s.index[p.fetchKey] == p {
			kept = append(kept, p)
		}
	}
	clear(s.parts[len(kept):])
	s.parts = kept
}

func (s *session) add(p fetchPart) {
	s.index[p.fetchKey] = &p
	s.parts = append(s.parts, &p)
}

// told remembers what a response told the client, and moves the partitions that had records behind the others, so that all
// get their turn.
func (s *session) told(results []fetchResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := map[*fetchPart]bool{}
	for i := range results {
		r := &results[i]
		if p := s.index[r.part.fetchKey]; p != nil {
			p.toldHW, p.toldStart = r.part.toldHW, r.part.toldStart
			had[p] = r.Bytes > 0
		}
	}
	var last []*fetchPart
	kept := s.parts[:0]
	for _, p := range s.parts {
		if had[p] {
			last = append(last, p)
		} else {
			kept = append(kept, p)
		}
	}
	s.parts = append(kept, last...)
}

// create makes a session, or returns nil if there is no room.
func (s *sessions) create(parts []fetchPart, byID bool, now time.Time) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byID) >= maxSessions {
		victim := s.victim(now, len(parts))
		if victim == nil {
			return nil
		}
		delete(s.byID, victim.id)
	}
	ses := &session{epoch: 1, byID: byID, index: make(map[fetchKey]*fetchPart, len(parts)), used: now, size: len(parts)}
	for _, p := range parts {
		ses.add(p)
	}
	for ses.id == 0 || s.byID[ses.id] != nil {
		ses.id = rand.Int32()
	}
	s.byID[ses.id] = ses
	return ses
}

// victim returns a session that gives way to one of size partitions: the one idle for longest if that is long, or else the
// smallest if it is smaller.
func (s *sessions) victim(now time.Time, size int) *session {
	var oldest, smallest *session
	for _, ses := range s.byID {
		if oldest == nil || ses.used.Before(oldest.used) {
			oldest = ses
		}
		if smallest == nil || ses.size < smallest.size {
			smallest = ses
		}
	}
	switch {
	case now.Sub(oldest.used) > sessionIdle:
		return oldest
	case smallest.size < size:
		return smallest
	}
	return nil
}

func (s *sessions) use(id int32, now time.Time) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses := s.byID[id]
	if ses != nil {
		ses.used = now
	}
	return ses
}

func (s *sessions) resize(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses.size = len(ses.parts)
}

func (s *sessions) remove(id int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, id)
}
