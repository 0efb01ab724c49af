package worker

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// format is the layout of a state directory that this version reads and writes.
const format = 1

var (
	// ErrInUse is a state directory that another process has open.
	ErrInUse = errors.New("state directory is in use")
	// ErrFormat is a state directory of a version that this one does not know.
	ErrFormat = errors.New("state directory has an unknown format")
	// ErrOtherApp is the state directory of another application.
	ErrOtherApp = errors.New("state directory belongs to another application")
)

// instanceBytes is the length of an instance id before it is written in hex.
const instanceBytes = 9

// Identity is who a process is to the cluster, across restarts: it lies in the state directory, which is locked while the
// process runs. The group knows the process by Instance, so that it gets its partitions back at once, and its
// producers by transactional ids, so that what a crash left open is ended by the next start and not by a timeout.
type Identity struct {
	App      string `json:"app"`
	Instance string `json:"instance"`
	// Producers is the greatest number of producers that this directory was ever used with: all their ids are initialised
	// before the group is joined.
	Producers int `json:"producers"`
	// Topics are the source topics as last seen.
	Topics map[string]SeenTopic `json:"topics,omitempty"`
	// Changelogs are the changelog topics as last seen.
	Changelogs map[string]SeenTopic `json:"changelogs,omitempty"`

	fs   vfs.FS
	dir  string
	lock io.Closer
}

// SeenTopic tells a topic from another one of the same name.
type SeenTopic struct {
	ID         string `json:"id,omitempty"`
	Partitions int32  `json:"partitions"`
}

// OpenIdentity locks a state directory, making it if it is missing. Close lets go of it.
func OpenIdentity(fs vfs.FS, dir, app string) (*Identity, error) {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory %s: %w", dir, err)
	}
	lock, err := fs.Lock(fs.PathJoin(dir, "lock"))
	if _, ok := errors.AsType[*os.PathError](err); ok { // there is no lock to be held by anybody
		return nil, fmt.Errorf("locking the state directory %s: %w", dir, err)
	}
	if err != nil {
		return nil, inUse(fs, dir, err)
	}
	id := &Identity{fs: fs, dir: dir, lock: lock}
	if err := id.read(app); err != nil {
		lock.Close()
		return nil, err
	}
	if err := id.write("pid", []byte(strconv.Itoa(os.Getpid())+"\n")); err != nil {
		lock.Close()
		return nil, err
	}
	return id, nil
}

// inUse names the directory, and the process if it can be known.
func inUse(fs vfs.FS, dir string, cause error) error {
	by := "another process"
	if pid, err := readFile(fs, fs.PathJoin(dir, "pid")); err == nil {
		by += " (pid " + strings.TrimSpace(string(pid)) + ")"
	}
	return fmt.Errorf("%w: %s is locked by %s; stop it, or give this one a state directory of its own (%w)", ErrInUse, dir, by, cause)
}

func (id *Identity) read(app string) error {
	b, err := readFile(id.fs, id.path("format"))
	switch {
	case err == nil:
		if v := strings.TrimSpace(string(b)); v != strconv.Itoa(format) {
			return fmt.Errorf("%w: %s says format %q, this program knows %d; use the version of the program that wrote it, or another directory: state is restored from the cluster", ErrFormat, id.dir, v, format)
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	default:
		if err := id.write("format", []byte(strconv.Itoa(format)+"\n")); err != nil {
			return err
		}
	}
	b, err = readFile(id.fs, id.path("identity"))
	switch {
	case err == nil:
		if err := json.Unmarshal(b, id); err != nil {
			return fmt.Errorf("%w: %s: %w; delete the directory if nothing else helps: state is restored from the cluster", ErrFormat, id.path("identity"), err)
		}
		if id.App != app {
			return fmt.Errorf("%w: %s is that of %q, not of %q; give each application a directory of its own", ErrOtherApp, id.dir, id.App, app)
		}
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	var random [instanceBytes]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	id.App, id.Instance = app, hex.EncodeToString(random[:])
	return id.save()
}

// Forget is for an application that begins anew: other source topics of the same names may come.
func (id *Identity) Forget() error {
	id.Topics = nil
	return id.save()
}

// save writes what has changed, durably.
func (id *Identity) save() error {
	b, err := json.MarshalIndent(id, "", "\t")
	if err != nil {
		return err
	}
	return id.write("identity", append(b, '\n'))
}

// write replaces a file in one step.
func (id *Identity) write(name string, data []byte) error {
	wrap := func(err error) error { return fmt.Errorf("writing %s: %w", id.path(name), err) }
	tmp := id.path(name + ".new")
	f, err := id.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return wrap(err)
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return wrap(err)
	}
	if err := id.fs.Rename(tmp, id.path(name)); err != nil {
		return wrap(err)
	}
	d, err := id.fs.OpenDir(id.dir)
	if err != nil {
		return wrap(err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return wrap(err)
	}
	return nil
}

func (id *Identity) path(name string) string { return id.fs.PathJoin(id.dir, name) }

// TransactionalID is the id of the n-th producer.
func (id *Identity) TransactionalID(n int) string {
	return id.App + "-" + id.Instance + "-" + strconv.Itoa(n)
}

// owner is the instance that a transactional id of the application was made for. What others have chosen, be it a
// producer of the user's or an application whose name begins alike, is not ours.
func owner(app, transactionalID string) (instance string, ok bool) {
	rest, ok := strings.CutPrefix(transactionalID, app+"-")
	if !ok {
		return "", false
	}
	instance, n, ok := strings.Cut(rest, "-")
	if !ok || n == "" || strings.Trim(n, "0123456789") != "" {
		return "", false
	}
	b, err := hex.DecodeString(instance)
	return instance, err == nil && len(b) == instanceBytes
}

// Close unlocks the directory.
func (id *Identity) Close() error { return id.lock.Close() }

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
