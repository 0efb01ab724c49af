package log

// maxGroup bounds the bytes written, and synced, at once.
const maxGroup = 4 << 20

// commitLoop is the one goroutine that writes: it takes all that has queued up while it wrote and synced what came
// before, so the more callers wait the more share a sync, and nobody waits for a timer.
func (l *Log) commitLoop() {
	defer close(l.commitDone)
	for stop := false; ; {
		if !stop {
			select {
			case <-l.queued:
			case <-l.stopCommit:
				stop = true // no more writes, but something may be left
			}
		}
		l.mu.Lock()
		group := l.queue
		l.queue = nil
		if stop && len(group) == 0 {
			l.committed = true
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		for len(group) > 0 {
			if err := l.awaitFlusher(); err != nil {
				l.fail(group, err, false)
				break
			}
			n, fatal, err := l.commitGroup(group)
			if err != nil {
				l.fail(group, err, fatal)
				break
			}
			group = group[n:]
		}
	}
}

// commitGroup writes as many entries of q as fit and publishes them.
func (l *Log) commitGroup(q []*entry) (n int, fatal bool, err error) {
	refer := l.refers(q)
	if refer {
		l.growing.Lock()
		defer l.growing.Unlock()
	}
	if n, fatal, err = l.writeGroup(q, refer); err != nil {
		for i := len(q) - 1; i >= 0; i-- {
			l.displace(q[i])
		}
		return 0, fatal, err
	}
	l.publish(q[:n])
	return n, false, nil
}

// writeGroup writes as many entries of q as fit, and syncs them if one of them wants it. A failed sync is fatal: nobody
// knows what the disk holds.
func (l *Log) writeGroup(q []*entry, refer bool) (n int, fatal bool, err error) {
	l.mu.Lock()
	err = l.failed
	l.mu.Unlock()
	if err != nil {
		return 0, true, err
	}
	w := &l.wal
	if refer {
		// After a failed write a file may refer to a place that is used again: that it ends before must be written first.
		if err := w.begin(q[0].now); err != nil {
			return 0, false, err
		}
	}
	// The first group after a start is synced always: it shows the next start that this one wrote.
	sync := !l.begun
	for n == 0 {
		frames, referred := false, int64(0)
		for n < len(q) && w.out.size()+referred < maxGroup {
			e := q[n]
			if !e.empty() {
				if refer {
					referred += l.place(e)
				}
				if !w.add(e.now, e.encode) {
					l.displace(e)
					break
				}
				frames = true
			}
			sync = sync || e.sync && l.o.Durability == Sync
			n++
		}
		if n > 0 && !frames {
			break
		}
		if n == 0 {
			if err := w.write(); err != nil {
				return 0, false, err
			}
			if err := w.rotate(q[0].now); err != nil {
				return 0, false, err
			}
		}
	}
	if err := w.write(); err != nil {
		return 0, false, err
	}
	if sync && w.behind() {
		if err := l.wal.sync(); err != nil {
			return 0, true, err
		}
		l.begun = true
	}
	return n, false, nil
}

// empty says that e has nothing to write and only waits for what was queued before it.
func (e *entry) empty() bool {
	return len(e.batches) == 0 && len(e.puts) == 0 && e.start == nil && e.drop == nil
}

func (e *entry) encode(g *gather) {
	for i := range e.batches {
		if e.batches[i].at.o != nil {
			g.buf = appendReferenceItem(g.buf, &e.batches[i])
		}
	}
	for i := range e.batches {
		if e.batches[i].at.o == nil {
			g.batchItem(e.batches[i].p.id, e.batches[i].data)
		}
	}
	for i := range e.puts {
		g.buf = appendPutItem(g.buf, &e.puts[i])
	}
	if e.start != nil {
		g.buf = appendLogStartItem(g.buf, e.start.id, e.offset)
	}
	if e.drop != nil {
		g.buf = appendDropItem(g.buf, e.drop.id)
	}
}

// publish makes written entries visible and tells those who wait.
func (l *Log) publish(group []*entry) {
	fresh := l.fresh[:0]
	for _, e := range group {
		for i := range e.batches {
			o := &e.batches[i]
			o.p.publish(o)
			fresh = append(fresh, cachedAt{o.p, int64(len(o.data)) + overhead})
		}
		l.table.apply(e.puts)
		if e.start != nil {
			e.start.setLogStart(e.offset)
		}
		if e.drop != nil {
			l.remove(e.drop)
		}
	}
	l.budget.add(fresh)
	clear(fresh)
	l.fresh = fresh
	l.published.Store(uint64(l.wal.position()))
	for _, e := range group {
		e.done(nil)
	}
	l.budget.evict(l.o.CacheBytes)
	l.wakeFlusher()
}

// publish makes one batch visible.
func (p *Partition) publish(o *ordered) {
	in := o.at.o
	if in != nil {
		in.mu.Lock()
		in.index.add(&o.h, o.data)
		in.mu.Unlock()
	}
	p.mu.Lock()
	n := int64(len(o.data))
	stable := p.stable()
	p.tail.push(cached{base: o.h.base, last: o.h.last(), pos: p.pos, ts: o.h.recordTS(), data: o.data, mem: o.mem})
	p.pos += n
	if in != nil {
		p.adopt(o)
	}
	p.see(o)
	p.wake(p.stable() != stable)
	fresh := in == nil && !p.dirty
	p.dirty = p.dirty || in == nil
	p.mu.Unlock()
	if in != nil {
		p.ahead -= n
		p.log.referred.Add(n)
		p.log.files.put(in)
		return
	}
	p.log.budget.unflushed.Add(n)
	if fresh {
		p.log.markDirty(p)
	}
}

// see moves the high watermark behind a batch. With p.mu held.
func (p *Partition) see(o *ordered) {
	p.hw = o.h.next()
	switch {
	case o.end.is:
		p.txns.end(o.h.pid, o.h.base, p.hw, o.end.commit)
	case o.h.txn():
		p.txns.data(o.h.pid, o.h.base)
	}
}

func (p *Partition) setLogStart(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if offset <= p.logStart {
		return
	}
	p.logStart = offset
	p.txns.dropBelow(offset)
	p.wake(true)
}

// remove forgets a deleted partition. Its files go with the next checkpoint.
func (l *Log) remove(p *Partition) {
	p.mu.Lock()
	p.gone = true
	l.budget.unflushed.Add(-(p.pos - p.flushPos))
	p.flushed, p.flushPos = p.hw, p.pos
	p.tail = tail{}
	l.discard(p.dir(), p.segs)
	p.segs = nil
	p.wake(true)
	p.mu.Unlock()
	l.mu.Lock()
	delete(l.parts, p.id)
	l.mu.Unlock()
}

// fail gives up on q, and on all that was queued meanwhile because it may build on q: what ordering changed is undone.
func (l *Log) fail(q []*entry, err error, fatal bool) {
	l.mu.Lock()
	if fatal && l.failed == nil {
		l.failed = err
		l.logger.Error("broker log: nothing more is written until it is opened again; reads go on", "dir", l.o.Dir, "error", err)
	}
	q = append(q, l.queue...)
	l.queue = nil
	for i := len(q) - 1; i >= 0; i-- {
		q[i].undo()
	}
	if len(q) > 0 {
		l.undone++
	}
	l.mu.Unlock()
	err = storageError(err)
	for _, e := range q {
		e.done(err)
	}
}

// barrier waits until everything queued so far is durable and visible.
func (l *Log) barrier() <-chan error {
	done := make(chan error, 1)
	l.mu.Lock()
	if l.failed != nil {
		done <- l.failed
	} else if l.committed {
		done <- ErrClosed
	} else {
		l.enqueue(&entry{sync: true, done: func(err error) { done <- err }})
	}
	l.mu.Unlock()
	return done
}
