package log

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// wal is the write-ahead log every write goes through first. Its files have a fixed size, are written in place and
// used again, so that a sync touches data only. Frames are added by one goroutine; syncs may come from another.
type wal struct {
	fs       vfs.FS
	dir      string
	fileSize int64
	lazy     bool // syncs are rare: how long one takes does not matter, and what frames refer to is synced with checkpoints

	// Of the goroutine that writes.
	f        vfs.File
	num      uint32
	off      int64     // end of what is written
	header   walHeader // of the next file; prevEnd is kept up to date
	nextNum  uint32
	out      gather // frames not yet written, from off on
	empty    bool   // the file holds its header only
	zeros    []byte
	reserved int64 // what lies below has space of its own
	filled   int64 // what lies below was written before: overwriting is twice as fast to sync as appending

	syncing sync.Mutex // one sync at a time
	mu      sync.Mutex
	current vfs.File   // f, as far as it is written
	end     lsn        // end of what is written
	left    []vfs.File // files left behind before they were synced
	live    []uint32   // numbers of files with frames, ascending
	spares  []string   // names of files of the usual size, for use again
	synced  lsn        // everything below is durable
	vouched lsn        // and what it refers to
}

const (
	walSpare  = "spare-"        // and the name the file had
	maxSpares = checkpointFiles // all that a checkpoint releases: new files are dear
	fillBytes = 1 << 20
)

func walName(num uint32) string { return fmt.Sprintf("%010d.wal", num) }

func walNumber(name string) (uint32, bool) {
	s, ok := strings.CutSuffix(name, ".wal")
	if !ok || len(s) != 10 {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}

func (w *wal) path(name string) string { return w.fs.PathJoin(w.dir, name) }

// position is where the next frame goes. A file not begun is one at its end.
func (w *wal) position() lsn {
	if w.f == nil {
		return w.header.prevEnd
	}
	return makeLSN(w.num, w.off)
}

// written is the end of what has been written.
func (w *wal) written() lsn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end
}

// add adds one frame to what is to be written; fill adds its items. It reports false, and adds nothing, if the frame
// needs another file: write, then rotate.
func (w *wal) add(now int64, fill func(*gather)) bool {
	if w.f == nil {
		return false
	}
	start := w.out.beginFrame()
	fill(&w.out)
	// A frame larger than a file gets a file of its own.
	if w.off+(w.out.size()+7)&^7 > w.fileSize && !w.empty {
		w.out.cut(start)
		return false
	}
	w.out.endFrame(start, makeLSN(w.num, w.off+start.size()), w.syncedTo(), now)
	w.empty = false
	return true
}

// write hands the frames to the operating system. After an error the file is abandoned: what part of them it holds is
// unknown, and the next file's header says where the good part ends.
func (w *wal) write() error {
	n := w.out.size()
	if n == 0 {
		return nil
	}
	if err := w.out.write(w.f, w.off, &w.reserved, w.fileSize); err != nil {
		w.leave()
		return fmt.Errorf("write %s: %w", w.path(walName(w.num)), err)
	}
	w.off += n
	if n < fillBytes/4 {
		w.fill()
	}
	w.mu.Lock()
	w.current, w.end = w.f, makeLSN(w.num, w.off)
	w.mu.Unlock()
	return nil
}

// fill writes zeros behind the end of a file that is used for the first time, where writes are small: of a large one the
// sync takes long anyway. If there is no room for them syncs are slower, no more.
func (w *wal) fill() {
	if w.lazy || w.off <= w.filled || w.off >= w.fileSize {
		return
	}
	to := min(w.off+fillBytes, w.fileSize)
	if w.zeros == nil {
		w.zeros = make([]byte, min(fillBytes, w.fileSize))
	}
	if _, err := w.f.WriteAt(w.zeros[:to-w.off], w.off); err == nil {
		w.filled = to
	}
}

// leave ends the current file.
func (w *wal) leave() {
	if w.f == nil {
		return
	}
	if w.off > 0 {
		w.header.prevEnd = w.position()
	} // else the file has no header and is not part of the log
	w.mu.Lock()
	w.left = append(w.left, w.f)
	w.current = nil
	w.mu.Unlock()
	w.f = nil
}

// rotate begins the next file. Its header is the first frame in the buffer.
func (w *wal) rotate(now int64) error {
	w.leave()
	name := walName(w.nextNum)
	filled, err := w.takeSpare(name)
	if err != nil {
		return err
	}
	f, err := w.fs.OpenReadWrite(w.path(name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create %s: %w", w.path(name), err)
	}
	if err := syncDir(w.fs, w.dir); err != nil {
		return errors.Join(err, f.Close())
	}
	w.f, w.num, w.off, w.filled, w.reserved = f, w.nextNum, 0, filled, filled
	w.nextNum++
	w.mu.Lock()
	w.live = append(w.live, w.num)
	w.mu.Unlock()
	w.empty = true
	w.add(now, func(g *gather) { g.buf = appendHeaderItem(g.buf, w.header) })
	w.empty = true
	return nil
}

// begin writes the header of the next file, unless there is one to go on with.
func (w *wal) begin(now int64) error {
	if w.f != nil {
		return nil
	}
	if err := w.rotate(now); err != nil {
		return err
	}
	return w.write()
}

// syncedTo is what frames say was synced: should a power loss take what lies behind it, then nothing is wrong.
func (w *wal) syncedTo() lsn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lazy {
		return w.vouched
	}
	return w.synced
}

// vouch notes that a checkpoint was taken.
func (w *wal) vouch(from lsn) {
	w.mu.Lock()
	w.vouched = max(w.vouched, from)
	w.mu.Unlock()
}

// takeSpare gives a spare file, if there is one, a name in the log, and returns its size.
func (w *wal) takeSpare(name string) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.spares)
	if n == 0 {
		return 0, nil
	}
	if err := w.fs.Rename(w.path(w.spares[n-1]), w.path(name)); err != nil {
		return 0, fmt.Errorf("use %s again: %w", w.path(w.spares[n-1]), err)
	}
	w.spares = w.spares[:n-1]
	return w.fileSize, nil
}

// sync makes everything written so far durable. An error is final: the kernel may have dropped what it could not write.
func (w *wal) sync() error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.mu.Lock()
	left, f, end := w.left, w.current, w.end
	w.left = nil
	w.mu.Unlock()
	for _, u := range left {
		if err := errors.Join(u.SyncData(), u.Close()); err != nil {
			return fmt.Errorf("sync the write-ahead log in %s: %w", w.dir, err)
		}
	}
	if f != nil {
		if err := f.SyncData(); err != nil {
			return fmt.Errorf("sync %s: %w", w.path(walName(end.file())), err)
		}
	}
	w.mu.Lock()
	w.synced = max(w.synced, end)
	w.mu.Unlock()
	return nil
}

// release gives up the files wholly before upTo: those of the usual size become spares, the others go.
func (w *wal) release(upTo lsn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, _ := slices.BinarySearch(w.live, upTo.file())
	old := slices.Clone(w.live[:i])
	w.live = slices.Delete(w.live, 0, i)
	var errs []error
	for _, num := range old {
		name := walName(num)
		if len(w.spares) < maxSpares && fileSize(w.fs, w.path(name)) == w.fileSize {
			if err := w.fs.Rename(w.path(name), w.path(walSpare+name)); err == nil {
				w.spares = append(w.spares, walSpare+name)
				continue
			}
		}
		errs = append(errs, removeIfThere(w.fs, w.path(name)))
	}
	return errors.Join(errs...)
}

// close syncs and closes the files.
func (w *wal) close() error {
	w.leave()
	return w.sync()
}

// abandon closes the files after a failed sync.
func (w *wal) abandon() {
	w.leave()
	for _, f := range w.left {
		_ = f.Close() // nothing in them counts on it
	}
}

// walFiles lists the numbers of the files in the directory, ascending.
func walFiles(fs vfs.FS, dir string) ([]uint32, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	var nums []uint32
	for _, name := range names {
		if n, ok := walNumber(name); ok {
			nums = append(nums, n)
		}
	}
	slices.SortFunc(nums, cmp.Compare[uint32])
	return nums, nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open directory %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// behind says that something written is not yet durable.
func (w *wal) behind() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.synced < w.end || len(w.left) > 0
}
