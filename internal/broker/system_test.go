package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/moldau/moldau/internal/broker/log"
)

// What the workload of histories runs against: a broker that can be struck.

// system is a broker under test. Its methods but dial are called by one goroutine.
type system interface {
	dial(ctx context.Context) (net.Conn, error)
	// crash ends it without notice and starts it on what that left.
	crash() error
	// hold has it stand still until the function it returns is called.
	hold() (release func(), err error)
	// slow has every sync take long, or no longer.
	slow(bool)
	stop()
}

// line is where the clients dial: whatever the address, the system, by connections that can be cut.
type line struct {
	to    system
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	down  bool
}

func (l *line) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	nc, err := l.to.dial(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		nc.Close()
		return nil, errors.New("the line is down")
	}
	c := &lineConn{nc, l}
	l.conns[c] = struct{}{}
	return c, nil
}

type lineConn struct {
	net.Conn
	l *line
}

func (c *lineConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}

// cut cuts the connections that which picks.
func (l *line) cut(which func() bool) {
	l.mu.Lock()
	var cut []net.Conn
	for c := range l.conns {
		if which() {
			cut = append(cut, c)
		}
	}
	l.mu.Unlock()
	for _, c := range cut {
		c.Close()
	}
}

func all() bool { return true }

// setDown takes the line down, and what is on it, or up again.
func (l *line) setDown(down bool) {
	l.mu.Lock()
	l.down = down
	l.mu.Unlock()
	if down {
		l.cut(all)
	}
}

// testedConfig makes much happen in little time: files change often, little is kept in memory, sessions are short.
func testedConfig(fs vfs.FS, dir string) Config {
	return Config{
		Dir: dir, FS: fs, walBytes: 1 << 20, largeBatch: 300, CacheBytes: 1 << 20, MinSessionTimeout: time.Second,
		ConsumerSessionTimeout: 5 * time.Second, ConsumerHeartbeatInterval: 500 * time.Millisecond, Logger: discard(),
	}
}

// slowFS is a disk that may take its time to sync.
type slowFS struct {
	vfs.FS
	slow *atomic.Bool
}

type slowFile struct {
	vfs.File
	slow *atomic.Bool
}

func (f slowFile) wait() {
	if f.slow.Load() {
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
	}
}

func (f slowFile) Sync() error     { f.wait(); return f.File.Sync() }
func (f slowFile) SyncData() error { f.wait(); return f.File.SyncData() }

func (s slowFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	return slowFile{f, s.slow}, nil
}

func (s slowFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name, c, o...)
	if err != nil {
		return nil, err
	}
	return slowFile{f, s.slow}, nil
}

// process is a broker in a process of its own, which kill -9 ends.
type process struct {
	dir, plant string
	unsynced   bool // Durability OS
	addr       atomic.Pointer[string]
	cmd        *exec.Cmd
	in         io.WriteCloser
	isSlow     bool
}

// What makes the test's binary a broker, and one with a bug.
const (
	childDir   = "MOLDAU_TEST_BROKER"
	childPlant = "MOLDAU_TEST_PLANT"
	childSyncs = "MOLDAU_TEST_SYNCS"
)

func newProcess(dir, plant string, unsynced bool) (*process, error) {
	p := &process{dir: dir, plant: plant, unsynced: unsynced}
	return p, p.start()
}

// serveChild is the process: a broker that says where it listens and obeys what it reads, until nobody is there to say more.
func serveChild(dir string) {
	slow := new(atomic.Bool)
	c := testedConfig(slowFS{vfs.Default, slow}, dir)
	c.Listeners = []Listener{{Address: "127.0.0.1:0"}}
	c.BootID = "test"
	c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	c.planted = plants[os.Getenv(childPlant)].plant
	if os.Getenv(childSyncs) == "false" {
		c.Durability = log.OS
	}
	b, err := Start(context.Background(), c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(b.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		slow.Store(in.Text() == "slow")
	}
	os.Exit(0)
}

func (p *process) start() error {
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childDir+"="+p.dir, childPlant+"="+p.plant, childSyncs+"="+strconv.FormatBool(!p.unsynced))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the broker did not start: %w", errors.Join(err, p.cmd.Wait()))
	}
	addr = strings.TrimSpace(addr)
	p.addr.Store(&addr)
	p.slow(p.isSlow)
	return nil
}

func (p *process) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", *p.addr.Load())
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.in.Close()
}

func (p *process) crash() error {
	p.kill()
	return p.start()
}

func (p *process) hold() (func(), error) {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	return func() { p.cmd.Process.Signal(syscall.SIGCONT) }, nil
}

func (p *process) slow(slow bool) {
	p.isSlow = slow
	word := "fast\n"
	if slow {
		word = "slow\n"
	}
	io.WriteString(p.in, word) // a process that is gone is as slow as can be
}

func (p *process) stop() { p.kill() }

// embedded is a broker in this process on a file system in memory, whose crash is a power loss.
type embedded struct {
	line   *line
	rng    *rand.Rand
	mem    *vfs.MemFS
	isSlow atomic.Bool
	plant  string
	now    atomic.Pointer[Broker]
	boots  int
}

func newEmbedded(l *line, rng *rand.Rand, plant string) (*embedded, error) {
	e := &embedded{line: l, rng: rng, mem: vfs.NewCrashableMem(), plant: plant}
	return e, e.start()
}

func (e *embedded) start() error {
	c := testedConfig(slowFS{e.mem, &e.isSlow}, "data")
	e.boots++
	c.BootID = fmt.Sprint(e.boots)
	p := plants[e.plant]
	if c.planted = p.plant; p.config != nil && e.boots > 1 {
		p.config(&c)
	}
	b, err := Start(context.Background(), c)
	if err != nil {
		return err
	}
	e.now.Store(b)
	return nil
}

func (e *embedded) dial(ctx context.Context) (net.Conn, error) { return e.now.Load().Dial(ctx, "", "") }

// crash takes the line down first: what clients have been told by then must last, and they are told nothing more.
func (e *embedded) crash() error {
	e.line.setDown(true)
	defer e.line.setDown(false)
	image := e.mem.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: []int{0, 10, 50, 100}[e.rng.IntN(4)], RNG: rand.New(rand.NewPCG(e.rng.Uint64(), 1)),
	})
	if err := e.now.Load().Close(); err != nil {
		return err
	}
	e.mem = image
	return e.start()
}

// hold cannot stop a process that it is in; it takes the line down.
func (e *embedded) hold() (func(), error) {
	e.line.setDown(true)
	return func() { e.line.setDown(false) }, nil
}

func (e *embedded) slow(slow bool) { e.isSlow.Store(slow) }
func (e *embedded) stop()          { e.now.Load().Close() }

// blow is one way of striking.
type blow int

const (
	crashes blow = iota
	holds
	cutsAll
	cutsHalf
	kills
	slows
)

// struck says how often what happened.
type struck [slows + 1]int

func (s struck) String() string {
	return fmt.Sprintf("%d crashes, %d holds, %d cuts, %d clients killed, %d slow disks", s[crashes], s[holds], s[cutsAll]+s[cutsHalf], s[kills], (s[slows]+1)/2)
}

// usual are the blows of a round, by weight.
var usual = slices.Concat(
	slices.Repeat([]blow{crashes}, 6), slices.Repeat([]blow{holds}, 3), slices.Repeat([]blow{cutsAll}, 2),
	slices.Repeat([]blow{cutsHalf}, 3), slices.Repeat([]blow{kills}, 4), slices.Repeat([]blow{slows}, 2))

// strike makes trouble of some kinds, of the first of them to begin with, until ctx ends, and leaves the system well.
func strike(ctx context.Context, rng *rand.Rand, kinds []blow, every time.Duration, s system, l *line, kill []func()) (n struck, err error) {
	pause := func(most time.Duration) bool {
		select {
		case <-time.After(time.Duration(rng.Int64N(int64(most)))):
			return true
		case <-ctx.Done():
			return false
		}
	}
	slow := false
	for next := kinds[0]; pause(2 * every); next = kinds[rng.IntN(len(kinds))] {
		n[next]++
		switch next {
		case crashes:
			if err := s.crash(); err != nil {
				return n, fmt.Errorf("after a crash: %w", err)
			}
		case holds:
			release, err := s.hold()
			if err != nil {
				return n, fmt.Errorf("holding the broker: %w", err)
			}
			pause(3 * time.Second)
			release()
		case cutsAll:
			l.cut(all)
		case cutsHalf:
			l.cut(func() bool { return rng.IntN(2) == 0 })
		case kills:
			kill[rng.IntN(len(kill))]()
		case slows:
			slow = !slow
			s.slow(slow)
		}
	}
	s.slow(false)
	return n, nil
}
