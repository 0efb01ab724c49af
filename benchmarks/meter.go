package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// meter takes the CPU time of this process and of the broker at two marks: after 30 % of the records, when start-up is
// over, and at the end.
type meter struct {
	job           job
	steady, final mark
}

type mark struct {
	done        int
	at          time.Time
	cpu, broker time.Duration
}

// figures is what a program reports as one line of JSON on standard output.
type figures struct {
	Program, Workload string
	ExactlyOnce       bool
	Records           int
	CPU               float64 // us of CPU per record, after the first 30 %
	Rate              float64 // records per second, after the first 30 %
	BrokerCPU         float64 // us per record, of the broker's process
	RSS               int     // peak, MB
	StateBytes        float64 // bytes of state per key, where known
}

func newMeter(j job) *meter { return &meter{job: j} }

// at is told the number of records done so far.
func (m *meter) at(done int) {
	if m.steady.done == 0 && done >= m.job.records*3/10 {
		m.steady = m.mark(done)
	}
}

func (m *meter) mark(done int) mark {
	k := mark{done: done, at: time.Now(), cpu: ownCPU()}
	if m.job.brokerPID > 0 {
		k.broker = processCPU(m.job.brokerPID)
	}
	return k
}

func (m *meter) report(program string, stateBytes float64) error {
	m.final = m.mark(m.job.records)
	n := float64(m.final.done - m.steady.done)
	return json.NewEncoder(os.Stdout).Encode(figures{
		Program: program, Workload: m.job.workload, ExactlyOnce: m.job.exactlyOnce, Records: m.job.records,
		CPU:       float64((m.final.cpu - m.steady.cpu).Microseconds()) / n,
		BrokerCPU: float64((m.final.broker - m.steady.broker).Microseconds()) / n,
		Rate:      n / m.final.at.Sub(m.steady.at).Seconds(),
		RSS:       peakRSS(), StateBytes: stateBytes,
	})
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processCPU reads another process's CPU time, which the kernel counts in hundredths of a second; 0 where it cannot be read.
func processCPU(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func peakRSS() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kb, _ := strconv.Atoi(f[1])
			return kb / 1024
		}
	}
	return 0
}
