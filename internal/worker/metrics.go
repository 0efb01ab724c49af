package worker

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the figures of a process, for Prometheus. What belongs to tasks is read from the node when it is asked for.
type Metrics struct {
	node atomic.Pointer[Node]

	producedTotal, restoredTotal prometheus.Counter
	undoneTotal                  prometheus.Counter
	commitSeconds                prometheus.Histogram
	latencySeconds               prometheus.Histogram
	restartsTotal                prometheus.Counter
}

var (
	latencyBuckets = []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30}

	descRecords     = prometheus.NewDesc("moldau_task_records_total", "Records that a task has stepped.", []string{"task"}, nil)
	descSkipped     = prometheus.NewDesc("moldau_task_skipped_total", "Records that the error policy left out.", []string{"task"}, nil)
	descDropped     = prometheus.NewDesc("moldau_node_dropped_total", "Records that an operator left out, by reason.", []string{"task", "node", "reason"}, nil)
	descPunctuated  = prometheus.NewDesc("moldau_task_punctuations_total", "Calls of punctuators.", []string{"task"}, nil)
	descStreamTime  = prometheus.NewDesc("moldau_task_stream_time_seconds", "Stream time of a task.", []string{"task"}, nil)
	descBuffered    = prometheus.NewDesc("moldau_task_buffered_bytes", "Input that has been fetched and waits.", []string{"task"}, nil)
	descLag         = prometheus.NewDesc("moldau_input_lag", "Offsets between the committed position and the end.", []string{"topic", "partition"}, nil)
	descCommitted   = prometheus.NewDesc("moldau_input_committed_offset", "Committed position.", []string{"topic", "partition"}, nil)
	descStoreMemory = prometheus.NewDesc("moldau_store_memory_bytes", "Memory that a store holds.", []string{"task", "store"}, nil)
	descMemory      = prometheus.NewDesc("moldau_memory_bytes", "What tasks hold of the memory budget.", nil, nil)
	descBudget      = prometheus.NewDesc("moldau_memory_budget_bytes", "The memory budget.", nil, nil)
	descState       = prometheus.NewDesc("moldau_state", "1 for the state that the application is in.", []string{"state"}, nil)
)

// NewMetrics makes the figures and registers them.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &Metrics{
		producedTotal:  counter("moldau_produced_records_total", "Records handed to producers: results, repartitioned and changelog records."),
		restoredTotal:  counter("moldau_restored_records_total", "Changelog records applied to stores."),
		undoneTotal:    counter("moldau_epochs_undone_total", "Epochs that were taken back, to be computed again."),
		restartsTotal:  counter("moldau_worker_restarts_total", "Workers that were begun again with a new producer."),
		commitSeconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "moldau_commit_seconds", Help: "From the end of an epoch to its commit.", Buckets: latencyBuckets}),
		latencySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "moldau_latency_seconds", Help: "From the arrival of the oldest input of an epoch at its task to the commit of all that came of it.", Buckets: latencyBuckets}),
	}
	for _, c := range []prometheus.Collector{m.producedTotal, m.restoredTotal, m.undoneTotal, m.restartsTotal, m.commitSeconds, m.latencySeconds, m} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) produced(n int)            { m.producedTotal.Add(float64(n)) }
func (m *Metrics) restored(n int64)          { m.restoredTotal.Add(float64(n)) }
func (m *Metrics) undone()                   { m.undoneTotal.Inc() }
func (m *Metrics) restarted()                { m.restartsTotal.Inc() }
func (m *Metrics) committed(d time.Duration) { m.commitSeconds.Observe(d.Seconds()) }
func (m *Metrics) latency(d time.Duration)   { m.latencySeconds.Observe(d.Seconds()) }

// Describe is for Prometheus. It says nothing: the tasks are not known beforehand.
func (m *Metrics) Describe(chan<- *prometheus.Desc) {}

// Collect is for Prometheus.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	n := m.node.Load()
	if n == nil {
		return
	}
	put := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	put(descState, prometheus.GaugeValue, 1, n.State())
	put(descMemory, prometheus.GaugeValue, float64(n.memory.Load()))
	put(descBudget, prometheus.GaugeValue, float64(n.cfg.Memory))
	for _, s := range n.Status() {
		put(descRecords, prometheus.CounterValue, float64(s.Records), s.Task)
		put(descSkipped, prometheus.CounterValue, float64(s.Skipped), s.Task)
		put(descPunctuated, prometheus.CounterValue, float64(s.Punctuations), s.Task)
		put(descBuffered, prometheus.GaugeValue, float64(s.Buffered), s.Task)
		if s.StreamTime >= 0 {
			put(descStreamTime, prometheus.GaugeValue, float64(s.StreamTime)/1000, s.Task)
		}
		for i, d := range s.Dropped {
			put(descDropped, prometheus.CounterValue, float64(s.DroppedCount[i]), s.Task, d.Node, d.Reason)
		}
		for _, in := range s.Inputs {
			p := strconv.Itoa(int(in.Partition))
			put(descCommitted, prometheus.GaugeValue, float64(in.Committed), in.Topic, p)
			if in.End >= 0 {
				put(descLag, prometheus.GaugeValue, float64(in.Lag()), in.Topic, p)
			}
		}
		for _, st := range s.Stores {
			put(descStoreMemory, prometheus.GaugeValue, float64(st.Memory), s.Task, st.Store)
		}
	}
}
