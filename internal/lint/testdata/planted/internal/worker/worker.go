// Package worker is at the edge: it may do what the core may not, but not everything.
package worker

import (
	"os"
	"sync"
	"time"
)

var pool sync.Pool // want "pool holds a sync.Pool"

var started, _ = os.Getwd()

func init() { // want "no init functions"
	started = "later" // want "the package variable started is assigned to"
}

// Run does at the edge what the core may not.
func Run() time.Time {
	go pool.Get()
	return time.Now()
}
