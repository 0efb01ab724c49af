package txn

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

var epoch0 = time.Unix(1000, 0)

// in returns a transactional id in a state, at epoch 5 of producer 1, its earlier epoch 4.
func in(state State) *Transaction {
	t := New("id", 1, epoch0)
	t.producer.Epoch, t.lastEpoch, t.previousID = 5, 4, 1
	t.timeout = time.Minute
	t.state = state
	if state == Ongoing {
		t.start = epoch0
		t.partitions[Partition{Partition: 3}] = struct{}{}
		t.groups["g"] = struct{}{}
	}
	return t
}

func newID() int64 { return 77 }

func name(err error) string {
	var e *kerr.Error
	switch {
	case err == nil:
		return "NONE"
	case errors.As(err, &e):
		return e.Message
	}
	return err.Error()
}

// The table of KIP-890: what the end of a transaction answers, by state and by what the client believes.
func TestEnd(t *testing.T) {
	const (
		none   = "NONE"            // answered before: nothing to do
		bump   = "bump"            // done, the epoch goes up
		end    = "end"             // done in version 1
		fenced = "PRODUCER_FENCED" //
		state  = "INVALID_TXN_STATE"
		id     = "INVALID_PRODUCER_ID_MAPPING"
	)
	current, before, after, other := Producer{1, 5}, Producer{1, 4}, Producer{1, 6}, Producer{2, 5}
	for _, c := range []struct {
		state         State
		producer      Producer
		abort, commit string // version 2
		abort1        string
		commit1       string // version 1
	}{
		{Empty, before, fenced, fenced, fenced, fenced},
		{Empty, current, bump, state, state, state},
		{Empty, after, fenced, fenced, fenced, fenced},
		{Empty, other, id, id, id, id},
		{Ongoing, before, fenced, fenced, fenced, fenced},
		{Ongoing, current, bump, bump, end, end},
		{Ongoing, after, fenced, fenced, fenced, fenced},
		{Ongoing, other, id, id, id, id},
		{CompleteAbort, before, none, state, fenced, fenced},
		{CompleteAbort, current, bump, state, none, state},
		{CompleteCommit, before, state, none, fenced, fenced},
		{CompleteCommit, current, bump, state, state, none},
		{CompleteCommit, after, fenced, fenced, fenced, fenced},
		{Dead, current, id, id, id, id},
	} {
		for _, v := range []struct {
			tv2, commit bool
			want        string
		}{{true, false, c.abort}, {true, true, c.commit}, {false, false, c.abort1}, {false, true, c.commit1}} {
			tx := in(c.state)
			before := tx.Marshal()
			ended, err := tx.End(epoch0, c.producer, v.commit, v.tv2, newID)
			got := name(err)
			if err == nil && ended.Ending != nil {
				got = end
				if ended.Producer.Epoch == 6 {
					got = bump
				}
			}
			what := fmt.Sprintf("%v, producer %v, commit %v, version 2 %v", c.state, c.producer, v.commit, v.tv2)
			if got != v.want {
				t.Errorf("%s: %s, want %s", what, got, v.want)
			}
			if (got != bump && got != end) && !bytes.Equal(before, tx.Marshal()) {
				t.Errorf("%s: %s, and the state changes", what, got)
			}
			if e := ended.Ending; e != nil && c.state == Ongoing {
				if len(e.Partitions) != 1 || len(e.Groups) != 1 || e.Commit != v.commit || e.TV2 != v.tv2 || e.DataEpoch != 5 {
					t.Errorf("%s: %+v", what, e)
				}
				if want := int16(5); v.tv2 && e.MarkerEpoch != want+1 || !v.tv2 && e.MarkerEpoch != want {
					t.Errorf("%s: markers of epoch %d", what, e.MarkerEpoch)
				}
			}
		}
	}
}

func TestInit(t *testing.T) {
	expect := func(id int64, epoch int16) *Producer { return &Producer{id, epoch} }
	for _, c := range []struct {
		what     string
		state    State
		edit     func(*Transaction)
		expected *Producer
		want     Producer
		last     int16
		abort    bool
		err      error
	}{
		{"a new instance", CompleteCommit, nil, nil, Producer{1, 6}, -1, false, nil},
		{"a new id", Empty, func(t *Transaction) { t.producer.Epoch, t.lastEpoch = -1, -1 }, nil, Producer{1, 0}, -1, false, nil},
		{"one that lost its id", Empty, func(t *Transaction) { t.producer.Epoch, t.lastEpoch = -1, -1 }, expect(9, 3), Producer{1, 0}, -1, false, nil},
		{"the current one", CompleteAbort, nil, expect(1, 5), Producer{1, 6}, 5, false, nil},
		{"a repetition", Empty, nil, expect(1, 4), Producer{1, 5}, 4, false, nil},
		{"an old one", Empty, nil, expect(1, 3), Producer{}, 4, false, kerr.ProducerFenced},
		{"another's", Empty, nil, expect(2, 5), Producer{}, 4, false, kerr.ProducerFenced},
		{"a new instance, open transaction", Ongoing, nil, nil, Producer{1, 7}, -1, true, nil},
		{"the current one, open transaction", Ongoing, nil, expect(1, 5), Producer{1, 6}, 5, true, nil},
		{"a zombie, open transaction of its successor", Ongoing, nil, expect(1, 4), Producer{}, 4, false, kerr.ProducerFenced},
		{"no epochs left", Empty, func(t *Transaction) { t.producer.Epoch = maxEpoch }, nil, Producer{77, 0}, -1, false, nil},
		{"no epochs left for the current one", Empty, func(t *Transaction) { t.producer.Epoch = maxEpoch }, expect(1, maxEpoch), Producer{77, 0}, maxEpoch, false, nil},
		{"no epochs left, open transaction", Ongoing, func(t *Transaction) { t.producer.Epoch = maxEpoch }, nil, Producer{77, 0}, -1, true, nil},
		{"no epochs left for the current one, open transaction", Ongoing, func(t *Transaction) { t.producer.Epoch = maxEpoch }, expect(1, maxEpoch), Producer{77, 0}, maxEpoch, true, nil},
		{"the last epoch but one, open transaction", Ongoing, func(t *Transaction) { t.producer.Epoch = maxEpoch - 1 }, nil, Producer{77, 0}, -1, true, nil},
		{"a repetition after a new id", Empty, func(t *Transaction) { t.producer, t.previousID, t.lastEpoch = Producer{77, 0}, 1, maxEpoch }, expect(1, maxEpoch), Producer{77, 0}, maxEpoch, false, nil},
		{"a forgotten id", Dead, nil, nil, Producer{}, 4, false, kerr.ConcurrentTransactions},
	} {
		tx := in(c.state)
		if c.edit != nil {
			c.edit(tx)
		}
		got, ending, err := tx.Init(epoch0, 30*time.Second, c.expected, newID)
		if got != c.want || err != c.err || (ending != nil) != c.abort || tx.lastEpoch != c.last {
			t.Errorf("%s: %v (last epoch %d), ending %v, %v; want %v (%d)", c.what, got, tx.lastEpoch, ending, err, c.want, c.last)
		}
		if err == nil && (tx.State() != Empty || tx.Timeout() != 30*time.Second) {
			t.Errorf("%s: %v with timeout %v", c.what, tx.State(), tx.Timeout())
		}
		if ending != nil && (ending.Commit || ending.MarkerEpoch <= ending.DataEpoch || len(ending.Partitions) != 1) {
			t.Errorf("%s: %+v", c.what, ending)
		}
	}
}

// The last epoch of a producer id is left for fencing: the next transaction has a new id, and a repeated request finds it.
func TestEpochsRunOut(t *testing.T) {
	tx := in(Ongoing)
	tx.producer.Epoch = maxEpoch
	ended, err := tx.End(epoch0, Producer{1, maxEpoch}, true, true, newID)
	if err != nil || ended.Producer != (Producer{77, 0}) || ended.Ending.MarkerEpoch != maxEpoch+1 || ended.Ending.ProducerID != 1 {
		t.Fatalf("%+v %+v, %v", ended, ended.Ending, err)
	}
	again, err := tx.End(epoch0, Producer{1, maxEpoch}, true, true, newID)
	if err != nil || again.Ending != nil || again.Producer != ended.Producer {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	if _, err := tx.End(epoch0, Producer{1, maxEpoch}, false, true, newID); err != kerr.InvalidTxnState {
		t.Errorf("abort of what is committed: %v", err)
	}
	if _, err := tx.Add(epoch0, Producer{77, 0}, []Partition{{}}); err != nil {
		t.Errorf("the next transaction: %v", err)
	}
}

func TestAddVerifyExpire(t *testing.T) {
	tx := in(Empty)
	p := tx.Producer()
	a, b := Partition{Partition: 1}, Partition{Partition: 2}
	for _, c := range []struct {
		at      time.Duration
		parts   []Partition
		groups  []string
		changed bool
	}{
		{0, []Partition{a}, nil, true}, {1, []Partition{a}, nil, false}, {2, []Partition{b, a}, nil, true},
		{3, nil, []string{"g"}, true}, {4, nil, []string{"g"}, false},
	} {
		if changed, err := tx.Add(epoch0.Add(c.at*time.Second), p, c.parts, c.groups...); changed != c.changed || err != nil {
			t.Errorf("add at %ds: %v, %v", c.at, changed, err)
		}
	}
	if _, err := tx.Add(epoch0, Producer{p.ID, p.Epoch - 1}, nil); err != kerr.ProducerFenced {
		t.Errorf("an old epoch: %v", err)
	}
	if _, err := tx.Add(epoch0, Producer{9, p.Epoch}, nil); err != kerr.InvalidProducerIDMapping {
		t.Errorf("another producer: %v", err)
	}
	if err := tx.Verify(p, a); err != nil {
		t.Error(err)
	}
	if err := tx.Verify(p, Partition{Partition: 9}); err != kerr.TransactionAbortable {
		t.Errorf("not added: %v", err)
	}
	if err := tx.VerifyGroup(p, "other"); err != kerr.InvalidTxnState {
		t.Errorf("group not added: %v", err)
	}
	if got := tx.Partitions(); !slices.Equal(got, []Partition{a, b}) {
		t.Errorf("partitions %v", got)
	}
	if d := tx.Deadline(); !d.Equal(epoch0.Add(time.Minute)) {
		t.Errorf("the timeout counts from the first partition: %v", d)
	}
	if e := tx.Expire(epoch0.Add(59 * time.Second)); e != nil {
		t.Error("expires too early")
	}
	e := tx.Expire(epoch0.Add(time.Minute))
	if e == nil || e.Commit || e.MarkerEpoch != p.Epoch+1 || tx.State() != CompleteAbort {
		t.Fatalf("%+v", e)
	}
	if err := tx.Verify(p, a); err != kerr.ProducerFenced {
		t.Errorf("after the timeout: %v", err)
	}
	// The producer may go on: it says which epoch it had.
	if got, _, err := tx.Init(epoch0, time.Minute, &p, newID); err != nil || got != (Producer{1, p.Epoch + 1}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestForget(t *testing.T) {
	if in(Ongoing).Forget(epoch0.Add(time.Hour)) {
		t.Error("an open transaction is forgotten")
	}
	tx := in(CompleteCommit)
	if tx.Forget(epoch0) {
		t.Error("forgotten too early")
	}
	if !tx.Forget(epoch0.Add(time.Second)) || tx.State() != Dead {
		t.Error("not forgotten")
	}
}

// Whatever a producer does, the record read back is the state, and a producer that was fenced never gets anything done
// again.
func TestRandomLives(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		now := epoch0
		ids := int64(1)
		fresh := func() int64 { ids++; return ids }
		tx := New("id", 1, now)
		held := []Producer{} // ever given out, the last one current
		for range 60 {
			now = now.Add(time.Duration(r.IntN(40)) * time.Second)
			tx.Expire(now)
			pick := func() Producer {
				if len(held) == 0 {
					return Producer{1, 0}
				}
				return held[r.IntN(len(held))]
			}
			current := tx.Producer()
			switch p := pick(); r.IntN(4) {
			case 0:
				var expected *Producer
				if r.IntN(2) == 0 {
					expected = &p
				}
				if got, _, err := tx.Init(now, time.Minute, expected, fresh); err == nil {
					held = append(held, got)
				}
			case 1:
				if _, err := tx.Add(now, p, []Partition{{Partition: int32(r.IntN(3))}}, "g"); err == nil && p != current {
					t.Fatalf("%v adds, the current producer is %v", p, current)
				}
			case 2:
				if ended, err := tx.End(now, p, r.IntN(2) == 0, true, fresh); err == nil {
					if ended.Ending != nil && p != current {
						t.Fatalf("%v ends a transaction, the current producer is %v", p, current)
					}
					if ended.Ending != nil {
						held = append(held, ended.Producer)
					}
				}
			case 3:
				if ended, err := tx.End(now, p, r.IntN(2) == 0, false, fresh); err == nil && ended.Ending != nil && p != current {
					t.Fatalf("%v ends a transaction, the current producer is %v", p, current)
				}
			}
			if (tx.State() == Ongoing) == tx.Deadline().IsZero() {
				t.Fatalf("%v with deadline %v", tx.State(), tx.Deadline())
			}
			b := tx.Marshal()
			again, err := Unmarshal("id", b)
			if err != nil || !bytes.Equal(again.Marshal(), b) {
				t.Fatalf("read back: %v", err)
			}
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(in(Ongoing).Marshal())
	f.Add(in(CompleteCommit).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		tx, err := Unmarshal("id", b)
		if err != nil {
			return
		}
		if again, err := Unmarshal("id", tx.Marshal()); err != nil || !bytes.Equal(again.Marshal(), tx.Marshal()) {
			t.Fatalf("read back: %v", err)
		}
	})
}
