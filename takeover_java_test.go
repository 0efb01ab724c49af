package moldau_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// javaStreams is a running Takeover.java.
type javaStreams struct {
	t   *testing.T
	in  io.Writer
	cmd *exec.Cmd
	log lockedBuffer

	mu   sync.Mutex
	said []string
}

func runJava(t *testing.T, brokers, classes string) *javaStreams {
	j := &javaStreams{t: t, cmd: exec.Command("java", "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classes, "Takeover", brokers)}
	j.cmd.Stderr = &j.log
	in, err := j.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := j.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := j.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			j.mu.Lock()
			j.said = append(j.said, s.Text())
			j.mu.Unlock()
		}
	}()
	j.in = in
	t.Cleanup(func() {
		j.cmd.Process.Kill()
		<-read
		j.cmd.Wait()
		if said := j.log.String(); t.Failed() && said != "" {
			t.Logf("Java says:\n%s", said[max(0, len(said)-20000):])
		}
	})
	return j
}

func (j *javaStreams) order(words ...string) {
	j.t.Helper()
	if _, err := fmt.Fprintln(j.in, strings.Join(words, " ")); err != nil {
		j.t.Fatal(err)
	}
}

// failed ends the test if one of the applications has failed.
func (j *javaStreams) failed() {
	j.t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.said {
		if strings.HasPrefix(line, "failed ") {
			j.t.Fatal(line)
		}
	}
}

// wait waits for a line.
func (j *javaStreams) wait(line string) {
	j.t.Helper()
	for end := time.Now().Add(takeoverPatience); ; time.Sleep(10 * time.Millisecond) {
		j.failed()
		j.mu.Lock()
		i := slices.Index(j.said, line)
		if i >= 0 {
			j.said = slices.Delete(j.said, i, i+1)
		}
		j.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(end) {
			j.t.Fatalf("not in time: %q", line)
		}
	}
}

// lockedBuffer is written by many.
type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
