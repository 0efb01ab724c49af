package commit

import (
	"errors"
	"fmt"
	"slices"

	"github.com/moldau/moldau/internal/cluster"
)

// Machine is the commit protocol of one worker. Its methods are called by one goroutine; after each, Take says what to do.
type Machine struct {
	cfg   Config
	phase phase
	now   int64
	out   []Action

	tasks   map[Task]*sequences
	open    epoch  // being computed
	sealed  *epoch // being committed, or nil
	leaving []leaving

	lastSeal  int64
	busy      bool  // an answered action is under way
	retryAt   int64 // when to try the phase's action again; 0: not waiting
	retries   int   // in a row, of the phase's action
	since     int64 // when the first of them was made
	restTill  int64 // no steps before
	failures  int   // epochs undone in a row
	retracted bool  // the undo to come is no failure: it goes on at once without a record

	spoilt   bool  // the open epoch, and the sealed one unless its outcome says otherwise, must be undone
	doubtful bool  // of the sealed one it is not known, and only the offsets can tell
	cause    error // why
	err      error // stop for good after the undo
	stopping bool
}

// New makes a machine that is running, with no task, at epoch 1.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, tasks: map[Task]*sequences{}, open: epoch{number: 1}, lastSeal: -cfg.Interval}
}

// Take returns what is to be done since the last Take. The slice is valid until the next method.
func (m *Machine) Take() []Action {
	a := m.out
	m.out = m.out[len(m.out):]
	return a
}

// Epoch is the number of the epoch that steps now belong to.
func (m *Machine) Epoch() uint32 { return m.open.number }

// MayStep reports whether tasks may be stepped.
func (m *Machine) MayStep() bool {
	return m.phase <= plain && !m.spoilt && !m.stopping && m.now >= m.restTill
}

// Spoilt reports whether what is open is going to be taken back.
func (m *Machine) Spoilt() bool { return m.spoilt || m.phase >= aborting }

// Busy reports whether an epoch is being committed or taken back.
func (m *Machine) Busy() bool { return m.phase != running }

// Cause is why the machine last took an epoch back or tries something again; nil after a commit.
func (m *Machine) Cause() error { return m.cause }

// State names what the machine is doing, for logs.
func (m *Machine) State() string { return m.phase.String() }

// Next is the time at which Tick has something to do; ok is false if only an event can.
func (m *Machine) Next() (at int64, ok bool) {
	switch {
	case m.phase == failed || m.phase == stopped:
		return 0, false
	case m.retryAt > 0:
		return m.retryAt, true
	case m.phase == running && m.open.worked:
		return m.lastSeal + m.cfg.Interval, true
	case m.now < m.restTill:
		return m.restTill, true
	}
	return 0, false
}

// Tick tells the time.
func (m *Machine) Tick(now int64) {
	m.now = max(m.now, now)
	if m.retryAt > 0 && m.now >= m.retryAt {
		m.retryAt = 0
		m.again()
	}
	m.advance()
}

// Join adds a task, with the sequence of its last commit.
func (m *Machine) Join(task Task, sequence int64) {
	m.tasks[task] = &sequences{committed: sequence, issued: sequence}
}

// Worked says that a task stepped a record or ran a punctuator in the open epoch.
func (m *Machine) Worked() { m.open.worked = true; m.advance() }

// Collected says that the open epoch has effects to produce.
func (m *Machine) Collected() {
	m.open.worked, m.open.held = true, true
	m.handOver()
	m.advance()
}

// Hurry asks for a commit as soon as possible: a task requested it, or memory is short.
func (m *Machine) Hurry() { m.open.hurry = true; m.advance() }

// Stop asks for everything to be committed, and then for Stopped. Tasks are not stepped any more.
func (m *Machine) Stop() { m.stopping = true; m.advance() }

// Revoke says that tasks go to another member, once they have been released. They are not stepped any more.
func (m *Machine) Revoke(tasks ...Task) {
	after := uint32(0)
	if m.open.worked {
		after = m.open.number
	} else if m.sealed != nil {
		after = m.sealed.number
	}
	for _, t := range tasks {
		m.leaving = append(m.leaving, leaving{task: t, after: after})
	}
	m.advance()
}

// Lost says that tasks are another member's already: nothing of them may be committed.
func (m *Machine) Lost(tasks ...Task) {
	for _, t := range tasks {
		i := slices.IndexFunc(m.leaving, func(l leaving) bool { return l.task == t })
		if i < 0 {
			m.leaving = append(m.leaving, leaving{task: t})
			i = len(m.leaving) - 1
		}
		m.leaving[i].lost = true
	}
	if m.sealed != nil || m.open.worked {
		m.spoil(nil)
	}
	m.advance()
}

// Retract takes back what is not committed, to begin again: a record is to be left out, or tried again, that has effects already. why is
// dealt with, however grave it would be otherwise.
func (m *Machine) Retract(why error) {
	m.retracted, m.cause = true, why
	m.spoil(nil)
	m.advance()
}

// Again takes back what is not committed, to try the same once more: what failed may pass by itself.
func (m *Machine) Again(why error) {
	m.spoil(why)
	m.advance()
}

// Reject says that an epoch cannot be committed because of the application: sealing failed, or a user function did and the
// policy is to take back what is open. What is uncommitted is undone, then the worker fails with err.
func (m *Machine) Reject(err error) {
	m.err = err
	m.spoil(err)
	m.advance()
}

// Sealed answers Seal: the tasks that worked and their positions; records is whether sealing left effects to produce.
func (m *Machine) Sealed(parts []Part, records bool) {
	e := m.open
	e.parts = parts
	e.held = e.held || records
	e.offsets = map[cluster.TP]cluster.Offset{}
	for _, p := range parts {
		for tp, pos := range p.Positions { //lint:ordered it fills a map
			meta := stamp(pos.Metadata, Sequence{m.tasks[p.Task].issued + 1, m.cfg.Writer})
			e.offsets[tp] = cluster.Offset{At: pos.At, Metadata: meta}
		}
		m.tasks[p.Task].issued++
	}
	m.handOverOf(&e)
	m.sealed = &e
	m.open = epoch{number: e.number + 1}
	m.lastSeal = m.now
	m.phase = flushing
	m.advance()
}

// Acked says that a produce call of epoch has been acknowledged, or has failed for good.
func (m *Machine) Acked(number uint32, err error) {
	var e *epoch
	switch {
	case m.sealed != nil && m.sealed.number == number:
		e = m.sealed
	case m.open.number == number:
		e = &m.open
	default:
		return // of an epoch that has been undone
	}
	if e.awaiting == 0 || m.phase >= aborting {
		return // undone, and its number used again
	}
	e.awaiting--
	if err != nil {
		m.spoil(err)
	}
	m.advance()
}

// Answer says how CommitOffsets, CommitPlain, End, Abort or Init went.
func (m *Machine) Answer(err error) {
	m.busy = false
	switch m.phase {
	case offsets, plain:
		m.answerOffsets(err)
	case ending:
		m.answerEnd(err)
	case aborting:
		switch {
		case m.doubtful:
			m.start(settling)
		case err != nil:
			m.start(initing)
		default:
			m.undo()
		}
	case initing:
		if m.answerInit(err) {
			m.undo()
		}
	case settling:
		if m.answerInit(err) {
			m.start(comparing)
		}
	}
	m.advance()
}

func (m *Machine) answerOffsets(err error) {
	switch {
	case err == nil && m.phase == plain:
		m.done()
	case err == nil && m.spoilt:
		m.start(aborting)
	case err == nil:
		m.start(ending)
	case m.spoilt:
		m.start(aborting)
	case errors.Is(err, cluster.ErrFenced), errors.Is(err, cluster.ErrAborted), fatal(err):
		m.spoil(err)
	case m.retries > 0 && m.now-m.since >= m.cfg.GiveUp && m.phase == offsets:
		m.spoil(err)
	case m.retries > 0 && m.now-m.since >= m.cfg.GiveUp && len(m.leaving) > 0 && errors.Is(err, cluster.ErrGeneration):
		// The group has given us up, and says so only after the release. An attempt before may have succeeded unheard.
		m.doubtful = true
		m.spoil(err)
	default: // another generation, or no answer: the same again is harmless
		m.retry(err)
	}
}

func (m *Machine) answerEnd(err error) {
	switch {
	case err == nil:
		m.done()
	case errors.Is(err, cluster.ErrAborted):
		m.sealed.begun = false // it is over
		m.spoil(err)
	default: // unknown or fenced: whether it was committed before that, only the offsets can tell
		m.cause = err
		m.start(settling)
	}
}

// answerInit reports whether the phase is over.
func (m *Machine) answerInit(err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, cluster.ErrFenced), fatal(err): // whoever has the id now has settled our transaction
		m.err = err
		return true
	}
	m.retry(err)
	return false
}

// Compared answers Compare with the committed sequences; a task without a commit is absent.
func (m *Machine) Compared(got map[Task]Sequence, err error) {
	m.busy, m.doubtful = false, false
	if err != nil {
		if fatal(err) {
			m.err = err
			m.undo()
		} else {
			m.retry(err)
		}
		m.advance()
		return
	}
	var yes, no int
	var foreign []Task
	for _, p := range m.sealed.parts {
		t := m.tasks[p.Task]
		switch s := got[p.Task]; {
		case s.Number == t.issued && s.Writer == m.cfg.Writer:
			yes++
		case s.Number == t.committed || s.Number < t.issued && s.Writer == m.cfg.Writer:
			no++
		default:
			foreign = append(foreign, p.Task)
		}
	}
	switch {
	case yes > 0 && no > 0: // a transaction is all or nothing
		m.err = fmt.Errorf("%w: of epoch %d the offsets of %d tasks are committed and of %d not", ErrForeignCommit, m.sealed.number, yes, no)
		m.undo()
	case yes > 0:
		m.spoilt = m.spoilt || len(foreign) > 0 // what the open epoch did for them must not be produced
		m.done()
	default:
		m.undo()
	}
	if len(foreign) > 0 {
		for _, t := range foreign {
			delete(m.tasks, t)
		}
		m.emit(Action{Kind: Rebuild, Tasks: foreign})
	}
	m.advance()
}
