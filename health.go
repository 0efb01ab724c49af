package moldau

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/moldau/moldau/internal/worker"
)

// Registry holds the App's metrics, for a process that serves metrics itself or adds its own.
func (a *App) Registry() *prometheus.Registry { return a.registry }

// Handler serves /metrics for Prometheus, /livez (200 while the process works at all) and /readyz (200 while it has joined
// its group and is neither restoring for the first time nor stopping), and /topology (?format=text, json, dot or mermaid).
func (a *App) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		a.health(w, a.State() != worker.Stopped)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		a.health(w, a.State() == worker.Running && a.node.Settled())
	})
	mux.HandleFunc("GET /topology", func(w http.ResponseWriter, r *http.Request) {
		text, err := a.topo.Describe().Format(r.URL.Query().Get("format"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, text)
	})
	return mux
}

func (a *App) health(w http.ResponseWriter, ok bool) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, a.State())
}

// TaskStatus says how a task does, as of a moment ago.
//
//	type TaskStatus struct {
//		Task         string // as in "0_3": sub-topology and partition
//		Worker       int
//		Records      int64 // taken up since the task was opened
//		Skipped      int64 // left out by the error policy
//		Punctuations int64 // calls of timers
//		Dropped      []struct{ Node, Reason string } // who left records out, and why
//		DroppedCount []int64                         // how many, in the same order
//		StreamTime   int64                           // the greatest record time that was taken up, ms; -1 before the first
//		Buffered     int64                           // bytes of input that wait
//		Inputs       []struct {                      // how far it is; End is -1 while it is not known; Lag is the difference
//			Topic          string
//			Partition      int32
//			Committed, End int64
//		}
//		Stores []struct {
//			Store  string
//			Memory int64 // bytes
//		}
//	}
type TaskStatus = worker.TaskStatus

// Tasks lists the tasks that run in this process, by name.
func (a *App) Tasks() []TaskStatus { return a.node.Status() }
