package worker

import (
	"errors"
	"fmt"
	"sync"

	"github.com/moldau/moldau/internal/tier"
)

// openStates opens the directories of tasks that have stores, side by side: each waits for the disk several times.
func (n *Node) openStates(slots []*slot) ([]tier.DB, error) {
	dbs, errs := make([]tier.DB, len(slots)), make([]error, len(slots))
	var wg sync.WaitGroup
	for i, s := range slots {
		if len(s.sub.Stores) == 0 {
			continue
		}
		wg.Go(func() {
			if dbs[i], errs[i] = n.openState(s.name); errs[i] != nil {
				errs[i] = fmt.Errorf("task %s: opening its state: %w", s.name, errs[i])
			}
		})
	}
	wg.Wait()
	err := errors.Join(errs...)
	if err != nil {
		for _, db := range dbs {
			if db != nil {
				db.Close()
			}
		}
	}
	return dbs, err
}

// openState opens a task's directory. A damaged one is dropped: all that is in it can be restored.
func (n *Node) openState(name string) (tier.DB, error) {
	db, err := n.cfg.State.Open(name)
	if errors.Is(err, tier.ErrDamaged) {
		n.log.Warn("state is damaged and will be restored from the changelog", "task", name, "error", err)
		n.emit(Event{Kind: StoreRebuilt, Task: name, Reason: err.Error()})
		if err := n.cfg.State.Remove(name); err != nil {
			return nil, permanent{err}
		}
		db, err = n.cfg.State.Open(name)
	}
	if err != nil {
		return nil, permanent{err}
	}
	return db, nil
}
