package worker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/topology"
)

// Node is one process of an application at work. Run may be called once.
type Node struct {
	cfg     Config
	log     *slog.Logger
	metrics *Metrics
	admin   cluster.Admin
	topics  *topics
	found   atomic.Pointer[topology.Topology] // what runs, with the topics that its patterns have matched
	writer  int64                             // this process in committed metadata

	work    context.Context // of everything that a clean stop still needs
	all     sync.WaitGroup  // what Run has started
	calls   sync.WaitGroup  // those of functions beside their tasks
	poller  *poller
	keeper  *keeper
	warden  *warden
	workers []*worker

	globals      []*global
	globalByName map[string]flow.Store
	globalLock   sync.RWMutex // held for reading while a task may look into a global table
	globalMemory int64        // what global tables hold, as last counted
	globalRead   int64        // bytes since; both belong to who follows them

	deployedAt int64 // how far the record of the topology has been read; the start's, then the warden's
	paused     atomic.Bool
	everyone   atomic.Bool // the other processes are to stop as well

	backlog  atomic.Int64 // bytes of input that have been polled and not yet stepped
	memory   atomic.Int64 // what all workers hold
	restarts []int64      // times of restarted workers, ms; workers' goroutines, under mu

	mu      sync.Mutex
	state   string
	err     error
	cancel  context.CancelFunc // begins the stop
	member  cluster.Member     // nil before the group is joined
	hung    bool               // see Hangs
	running map[string]*worker // tasks, by name
	// assigned is how many tasks the group has given to this process.
	assigned int
	status   map[string]TaskStatus
	ends     map[cluster.TP]int64
	plan     assign.Plan
	ready    chan struct{}
}

// New makes a Node; nothing happens before Run.
func New(cfg Config) *Node {
	n := &Node{cfg: cfg, log: cfg.Logger, metrics: cfg.Metrics, globalByName: map[string]flow.Store{}, state: Created,
		running: map[string]*worker{}, status: map[string]TaskStatus{}, ready: make(chan struct{})}
	n.metrics.node.Store(n)
	n.topics = newTopics(n)
	n.found.Store(cfg.Topology)
	var b [8]byte
	rand.Read(b[:])
	n.writer = int64(binary.BigEndian.Uint64(b[:]))
	return n
}

// Run works until ctx ends, then stops cleanly and returns nil; or until something fails that does not pass, then it
// stops as cleanly as possible and says what.
func (n *Node) Run(ctx context.Context) error {
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	n.work = work
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.mu.Lock()
	n.cancel = cancel
	n.mu.Unlock()
	n.admin = n.cfg.Cluster.Admin()

	n.setState(Starting)
	ended := make(chan error, 1)
	n.all.Go(func() { ended <- n.start(ctx, abort) })
	var err error
	select {
	case err = <-ended:
	case <-n.overdue(ctx):
		err = n.giveUp(abort)
	}
	n.setState(Stopped)
	if ctx.Err() != nil && !errors.Is(err, ErrStopTimeout) {
		return n.failure() // what a start says that was broken off does not matter
	}
	return err
}

// stopGrace is how long a stop may go on after it was cut short: what does not hang ends at once.
const stopGrace = 250 * time.Millisecond

// overdue is closed when a stop has taken longer than it may.
func (n *Node) overdue(ctx context.Context) <-chan struct{} {
	late := make(chan struct{})
	context.AfterFunc(ctx, func() {
		time.AfterFunc(n.cfg.StopTimeout+stopGrace, func() { close(late) })
	})
	return late
}

// giveUp ends Run without what hangs, most likely an author's function: there is no way to end a goroutine from outside.
// Nothing that it does can be committed any more. When it comes back what it holds is closed; see Wait.
func (n *Node) giveUp(abort context.CancelFunc) error {
	err := errors.Join(n.failure(), n.cutShort(n.hanging()))
	abort()
	n.mu.Lock()
	n.hung = true
	member := n.member
	n.mu.Unlock()
	if member != nil { // else the group would hold its tasks for it as long as this process lives
		ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
		defer cancel()
		if err := member.Leave(ctx); err != nil {
			n.log.Warn("leaving the group; others wait for the session to end", "error", err)
		}
	}
	return err
}

// cutShort says that a stop was, and what held it up.
func (n *Node) cutShort(what string) error {
	if what != "" {
		what = "; " + what
	}
	return fmt.Errorf("%w after %v%s: what was not committed will be done again", ErrStopTimeout, n.cfg.StopTimeout, what)
}

// Hangs says whether Run has returned without something that did not come back.
func (n *Node) Hangs() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hung
}

// Wait waits until nothing of the node is at work any more: longer than Run only if something hangs.
func (n *Node) Wait() { n.all.Wait() }

// start brings everything up in order, runs until ctx ends and takes everything down in the opposite order.
func (n *Node) start(ctx context.Context, abort context.CancelFunc) error {
	for _, step := range []func(context.Context) error{n.topics.prepare, n.deploy} {
		if err := n.reach(ctx, step); err != nil {
			return err
		}
	}
	producers, err := n.producers(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, w := range n.workers {
			w.producer.Close()
		}
	}()
	for i, p := range producers {
		n.workers = append(n.workers, newWorker(n, i, p))
	}

	var all sync.WaitGroup // goroutines that end with work
	defer all.Wait()
	defer abort()
	defer n.closeGlobals()
	following, stopFollowing := context.WithCancel(n.work)
	var globals sync.WaitGroup
	defer globals.Wait()
	defer stopFollowing()
	if len(n.cfg.Topology.Globals) > 0 {
		reader, err := n.cfg.Cluster.Reader()
		if err != nil {
			return err
		}
		defer func() { stopFollowing(); globals.Wait(); reader.Close() }()
		follower, err := n.startGlobals(ctx, reader)
		if err != nil {
			return err
		}
		globals.Go(func() { n.followGlobals(following, follower) })
	}

	if len(n.topology().Subs) == 0 { // nothing but global tables: there is no group to join
		n.setState(Running)
		close(n.ready)
		<-ctx.Done()
		n.setState(Stopping)
		return nil
	}
	reader, err := n.cfg.Cluster.Reader()
	if err != nil {
		return err
	}
	defer reader.Close()
	member, err := n.cfg.Cluster.Member(cluster.MemberConfig{Group: n.cfg.App, Instance: n.cfg.Identity.Instance,
		Subtopologies: n.subtopologies(), Anchor: n.anchor(), Endpoint: n.cfg.Advertise, SessionTimeout: n.cfg.SessionTimeout})
	if err != nil {
		return fmt.Errorf("joining the group: %w", err)
	}
	defer member.Close()
	n.mu.Lock()
	n.member = member
	n.mu.Unlock()
	n.setState(Joining)
	n.poller, n.keeper = newPoller(n, member), newKeeper(n, reader)
	n.warden = &warden{n: n, box: newMailbox[endsWanted](), look: make(chan struct{}, 1)}

	var workers, couriers sync.WaitGroup
	for _, w := range n.workers {
		workers.Go(func() { n.labelled("worker "+strconv.Itoa(w.index), w.run) })
		couriers.Go(func() { w.courierRun(n.work) })
	}
	keeping, stopKeeping := context.WithCancel(n.work)
	polling, stopPolling := context.WithCancel(n.work)
	var keeper, poller sync.WaitGroup
	keeper.Go(func() { n.labelled("keeper", func() { n.keeper.run(keeping) }) })
	poller.Go(func() { n.poller.run(polling) })
	all.Go(func() { n.warden.run(keeping) })

	<-ctx.Done()
	n.setState(Stopping)
	if n.everyone.Load() {
		n.stopOthers(n.failure())
	}
	n.poller.box.put(func() { n.poller.stopping = true })
	cut := n.stopWorkers(&workers, abort)
	stopKeeping()
	keeper.Wait()
	stopPolling()
	poller.Wait()
	for _, w := range n.workers {
		w.closeRest() // only now nobody hands tasks over any more
	}
	n.poller.rest()
	for _, w := range n.workers {
		close(w.courier)
	}
	couriers.Wait()
	n.calls.Wait()
	if cut != nil {
		return errors.Join(n.failure(), cut)
	}
	leave, cancel := context.WithTimeout(n.work, time.Second)
	defer cancel()
	if err := member.Leave(leave); err != nil {
		n.log.Warn("leaving the group; others wait for the session to end", "error", err)
	}
	return nil
}

// patience is how long a start waits for a cluster that cannot be reached: as long as a broker takes to restart, and not
// so long that a wrong address goes unnoticed.
const patience = time.Minute

// reach does a step of the start, and does it again while the cluster cannot be reached.
func (n *Node) reach(ctx context.Context, step func(context.Context) error) error {
	began := n.millis()
	for attempt := 0; ; attempt++ {
		err := step(ctx)
		if ctx.Err() != nil || !errors.Is(err, cluster.ErrUnreachable) || n.millis()-began >= patience.Milliseconds() {
			return err
		}
		if attempt%20 == 0 {
			n.log.Warn("the start waits for the cluster", "error", err)
		}
		sleep(ctx, min(time.Duration(attempt+1)*20*time.Millisecond, time.Second))
	}
}

// stopWorkers has workers commit and close. The error says that it had to be cut short.
func (n *Node) stopWorkers(workers *sync.WaitGroup, abort context.CancelFunc) error {
	for _, w := range n.workers {
		w.stop()
	}
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	t := time.NewTimer(n.cfg.StopTimeout)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
	}
	cut := n.cutShort(n.hanging())
	abort()
	for _, w := range n.workers {
		w.abandon()
	}
	<-done
	return cut
}

// producers initialises every transactional id that the state directory ever used, all at once, and returns the
// producers that are needed now. What a crash left open is thereby ended before the group is joined.
func (n *Node) producers(ctx context.Context) ([]cluster.Producer, error) {
	id := n.cfg.Identity
	want := min(n.cfg.Workers, max(n.taskCount(), 1))
	if n.cfg.Topology.Patterns() {
		want = n.cfg.Workers // there may be more tasks later
	}
	ever := max(want, id.Producers)
	if ever > id.Producers {
		id.Producers = ever
		if err := id.save(); err != nil {
			return nil, err
		}
	}
	if !n.cfg.Transactional {
		ever = want
	}
	producers := make([]cluster.Producer, ever)
	errs := make([]error, ever)
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() { producers[i], errs[i] = n.newProducer(ctx, i) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	for i, p := range producers {
		if p != nil && (err != nil || i >= want) {
			p.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return producers[:want], nil
}

func (n *Node) newProducer(ctx context.Context, i int) (cluster.Producer, error) {
	cfg := cluster.ProducerConfig{TransactionTimeout: n.cfg.TransactionTimeout}
	if n.cfg.Transactional {
		cfg.TransactionalID = n.cfg.Identity.TransactionalID(i)
	}
	p, err := n.cfg.Cluster.Producer(cfg)
	if err != nil {
		return nil, fmt.Errorf("making producer %d: %w", i, err)
	}
	for attempt := 0; ; attempt++ {
		if err = p.Init(ctx); err == nil {
			return p, nil
		}
		if ctx.Err() != nil || !transient(err) {
			p.Close()
			return nil, fmt.Errorf("initialising producer %d: %w", i, err)
		}
		if attempt%20 == 0 {
			n.log.Warn("initialising a producer fails, trying again", "producer", i, "error", err)
		}
		sleep(ctx, min(time.Duration(attempt+1)*20*time.Millisecond, time.Second))
	}
}

// fail stops the node because of err; the first one counts.
func (n *Node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.err = err
		n.log.Error("stopping", "error", err)
	}
	n.cancel()
}

// failAs is fail for an error whose Response is known.
func (n *Node) failAs(err error, r Response) {
	if r == StopApplication {
		n.everyone.Store(true)
	}
	n.fail(err)
}

func (n *Node) failure() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// mayRestart bounds how often workers are restarted: five times in ten minutes.
func (n *Node) mayRestart() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.millis()
	n.restarts = slices.DeleteFunc(n.restarts, func(at int64) bool { return now-at > 10*60*1000 })
	if len(n.restarts) >= 5 {
		return false
	}
	n.restarts = append(n.restarts, now)
	return true
}

func (n *Node) closeTask(h *hosted, flush bool) {
	if err := h.close(flush, n.millis()); err != nil {
		n.log.Error("closing task", "task", h.name, "error", err)
	}
}

func (n *Node) millis() int64 { return n.cfg.Now().UnixMilli() }

func (n *Node) emit(e Event) {
	if n.cfg.Event != nil {
		n.cfg.Event(e)
	}
}

// What the topology says of tasks.

// topology is as of the last look at which topics there are.
func (n *Node) topology() *topology.Topology { return n.found.Load() }

func (n *Node) sub(id task.ID) *topology.Sub { return n.topology().Subs[id.Sub] }

// taskOf is the task that reads a partition.
func (n *Node) taskOf(tp cluster.TP) (task.ID, bool) {
	for _, s := range n.topology().Subs {
		for _, t := range s.Sources {
			if t.Full(n.cfg.App) == tp.Topic {
				return task.ID{Sub: s.ID, Partition: tp.Partition}, true
			}
		}
	}
	return task.ID{}, false
}

// source is a topic that is read, by its full name; nil: it is not read any more.
func (n *Node) source(name string) *topology.Topic {
	for _, s := range n.topology().Subs {
		for _, t := range s.Sources {
			if t.Full(n.cfg.App) == name {
				return t
			}
		}
	}
	return nil
}

// changelogs are the partitions that a task's stores write to.
func (n *Node) changelogs(id task.ID) []cluster.TP {
	var tps []cluster.TP
	for _, s := range n.sub(id).Stores {
		if s.Topic != nil && s.Replay == nil {
			tps = append(tps, cluster.TP{Topic: s.Topic.Full(n.cfg.App), Partition: id.Partition})
		}
	}
	return tps
}

// width is the number of tasks of a sub-topology.
func (n *Node) width(s *topology.Sub) int32 {
	return s.Tasks(func(t *topology.Topic) int32 {
		info, _ := n.topics.info(t.Full(n.cfg.App))
		return info.Partitions
	})
}

func (n *Node) taskCount() int {
	count := 0
	for _, s := range n.topology().Subs {
		count += int(n.width(s))
	}
	return count
}

func (n *Node) subtopologies() []assign.Subtopology {
	var subs []assign.Subtopology
	for i, s := range n.topology().Subs {
		var one assign.Subtopology
		for _, t := range s.Sources {
			if t.Of != nil {
				one.Matched = append(one.Matched, t.Name)
			} else {
				one.Topics = append(one.Topics, t.Full(n.cfg.App))
			}
		}
		for _, t := range n.cfg.Topology.Subs[i].Sources {
			if t.Kind == topology.Pattern {
				one.Patterns = append(one.Patterns, t.Name)
			}
		}
		for _, st := range s.Stores {
			one.Stateful = one.Stateful || st.Topic != nil
		}
		subs = append(subs, one)
	}
	return subs
}

// anchor keeps a process in the group that has nothing to read yet.
func (n *Node) anchor() string {
	if n.cfg.Topology.Patterns() {
		return DeployedTopic(n.cfg.App)
	}
	return ""
}

// leastBusy is the worker with the fewest tasks.
func (n *Node) leastBusy() *worker {
	return slices.MinFunc(n.workers, func(a, b *worker) int { return cmp.Compare(a.tasks.Load(), b.tasks.Load()) })
}

func compareIDs(a, b task.ID) int {
	return cmp.Or(cmp.Compare(a.Sub, b.Sub), cmp.Compare(a.Partition, b.Partition))
}
