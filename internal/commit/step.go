package commit

import "slices"

func (m *Machine) emit(a Action) { m.out = append(m.out, a) }

// advance makes every transition that needs no further input.
func (m *Machine) advance() {
	if m.spoilt && !m.busy && m.phase < aborting {
		m.start(aborting)
		return
	}
	switch m.phase {
	case running:
		switch {
		case m.spoilt:
		case m.due():
			m.phase = sealing
			m.emit(Action{Kind: Seal, Epoch: m.open.number})
		case m.stopping && !m.open.worked:
			m.releaseLeft()
			m.phase = stopped
			m.emit(Action{Kind: Stopped})
		case len(m.leaving) > 0:
			m.releaseLeft()
		}
	case flushing:
		if m.sealed.awaiting > 0 {
			return
		}
		switch {
		case len(m.sealed.offsets) == 0 && !m.sealed.produced:
			m.done()
			m.advance()
		case m.cfg.Transactional && m.sealed.produced:
			m.start(offsets)
		default:
			m.start(plain)
		}
	}
}

// due reports whether the open epoch is to be sealed now.
func (m *Machine) due() bool {
	return m.open.worked && (m.open.hurry || m.stopping || len(m.leaving) > 0 || m.now >= m.lastSeal+m.cfg.Interval)
}

// handOver produces what the open epoch has collected, unless a transaction is in the way.
func (m *Machine) handOver() {
	if m.phase == running || !m.cfg.Transactional && m.phase <= plain {
		m.handOverOf(&m.open)
	}
}

func (m *Machine) handOverOf(e *epoch) {
	if !e.held || m.spoilt {
		return
	}
	if m.cfg.Transactional && !e.begun {
		e.begun = true
		m.emit(Action{Kind: Begin})
	}
	e.held, e.produced = false, true
	e.awaiting++
	m.emit(Action{Kind: Produce, Epoch: e.number})
}

// start enters a phase that waits for an answer and asks its question.
func (m *Machine) start(p phase) {
	m.phase, m.retries, m.retryAt, m.since = p, 0, 0, m.now
	m.again()
}

// again asks the phase's question, for the first time or once more.
func (m *Machine) again() {
	a := Action{}
	switch m.phase {
	case offsets:
		a = Action{Kind: CommitOffsets, Epoch: m.sealed.number, Offsets: m.sealed.offsets}
	case plain:
		a = Action{Kind: CommitPlain, Epoch: m.sealed.number, Offsets: m.sealed.offsets}
	case ending:
		a = Action{Kind: End, Epoch: m.sealed.number}
	case aborting:
		a = Action{Kind: Abort, Transaction: m.open.begun || m.sealed != nil && m.sealed.begun}
	case initing, settling:
		a = Action{Kind: Init}
	case comparing:
		a = Action{Kind: Compare, Epoch: m.sealed.number, Tasks: tasksOf(m.sealed.parts)}
	default:
		panic("commit: nothing to ask in phase " + m.phase.String())
	}
	m.busy = true
	m.emit(a)
}

// retry waits a little and asks again. The cause stays visible until a commit succeeds.
func (m *Machine) retry(err error) {
	m.cause = err
	m.retryAt = m.now + backoff(m.retries)
	m.retries++
}

// spoil notes that the open epoch, and the sealed one unless it is committed already, must be taken back. If an
// answer is awaited it is waited for: it may say that the sealed epoch is committed.
func (m *Machine) spoil(err error) {
	m.spoilt = true
	if err == nil {
		return
	}
	m.cause = err
	if fatal(err) && m.err == nil {
		m.err = err
	}
}

// done: the sealed epoch is committed.
func (m *Machine) done() {
	e := m.sealed
	m.spoilt = m.spoilt || m.err != nil
	for _, p := range e.parts {
		t := m.tasks[p.Task]
		t.committed = t.issued
	}
	m.sealed = nil
	m.failures, m.cause = 0, nil
	m.emit(Action{Kind: Done, Epoch: e.number, Tasks: tasksOf(e.parts)})
	m.settled(e.number)
	m.phase = running
	m.handOver()
}

// undo: neither the sealed epoch nor the open one is committed, and the producer holds nothing of them.
func (m *Machine) undo() {
	first := m.open.number
	if m.sealed != nil {
		first = m.sealed.number
	}
	m.sealed = nil
	m.open = epoch{number: first}
	m.spoilt, m.doubtful = false, false
	if !m.retracted {
		if m.failures++; m.failures > 1 {
			m.restTill = m.now + backoff(m.failures-2)
		}
	}
	m.retracted = false
	m.emit(Action{Kind: Undo, Epoch: first})
	m.releaseLeft()
	m.phase = running
	if m.err != nil {
		m.phase = failed
		m.emit(Action{Kind: Fail, Err: m.err})
	}
}

// settled releases what was only waiting for epoch number.
func (m *Machine) settled(number uint32) {
	var gone []Task
	m.leaving = slices.DeleteFunc(m.leaving, func(l leaving) bool {
		if l.after > number || l.lost && m.spoilt {
			return false
		}
		gone = append(gone, l.task)
		return true
	})
	m.release(gone)
}

// releaseLeft releases every leaving task: nothing of them is open.
func (m *Machine) releaseLeft() {
	var gone []Task
	for _, l := range m.leaving {
		gone = append(gone, l.task)
	}
	m.leaving = nil
	m.release(gone)
}

func (m *Machine) release(tasks []Task) {
	if len(tasks) == 0 {
		return
	}
	for _, t := range tasks {
		delete(m.tasks, t)
	}
	m.emit(Action{Kind: Release, Tasks: tasks})
}

func tasksOf(parts []Part) []Task {
	tasks := make([]Task, len(parts))
	for i, p := range parts {
		tasks[i] = p.Task
	}
	return tasks
}
