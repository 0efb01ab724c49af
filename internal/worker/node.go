package worker

import (
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
	n.warden = &warden{n: n, box: newMailbox[endsWanted](), look: make(chan struct{}, 1), purged: map[cluster.TP]int64{}}

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
		if ctx.Err() != nil || !errors.Is(err, cluster.ErrUnreachable) {
			return err
		}
		if n.millis()-began >= patience.Milliseconds() {
			return fmt.Errorf("%w; given up after %v: see that the addresses in Config.Brokers are right, and reached from here", err, patience)
		}
		if attempt%20 == 0 {
			n.log.Warn("the start waits for the cluster", "error", err)
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
