package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is a process that is measured.
type server struct {
	addr string
	pid  int       // 0: not known
	cmd  *exec.Cmd // nil: not ours
	dir  string    // to remove with it; "": none
}

var listens = regexp.MustCompile(`listens on ([^\s,]+)`)

// startServer starts a program that says "listens on ADDRESS" when it does.
func startServer(ctx context.Context, dir, name string, args ...string) (*server, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, pid: cmd.Process.Pid, dir: dir}
	line, err := bufio.NewReader(out).ReadString('\n')
	m := listens.FindStringSubmatch(line)
	if m == nil {
		s.stop()
		return nil, errors.Join(fmt.Errorf("%s does not listen", name), err)
	}
	s.addr = m[1]
	return s, nil
}

func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.cmd.Wait()
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

// cpu is the processor time used so far, of all threads.
func (s *server) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; utime and stime are the 12th and 13th fields behind it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ is 100 everywhere
}

// resident is the memory held, in bytes.
func (s *server) resident() int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	for line := range strings.SplitSeq(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
