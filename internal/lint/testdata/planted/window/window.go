// Package window holds package variables, good and bad.
package window

import (
	"errors"
	"regexp"
	"sync"
	"sync/atomic"
)

// ErrClosed is a sentinel; nobody has a reason to change it.
var ErrClosed = errors.New("closed")

// Days can be written to from everywhere.
var Days = []string{"Mo", "Di"} // want "Days can be written to by every importer"

type zone struct{}

// Zone has nothing that could change.
var Zone zone

var (
	word   = regexp.MustCompile(`\w+`)
	months = map[string]int{"Jan": 1}
	hits   atomic.Int64          // want "hits holds a atomic.Int64"
	done   = make(chan struct{}) // want "done holds a channel"
	last   struct{ n int }
	seen   = map[string]bool{}
	table  [4]int
	//lint:state shared on purpose: it only saves memory
	scratch sync.Pool
	filled  = func() map[int]int { m := map[int]int{}; m[1] = 2; return m }()
)

func use(s string) int {
	hits.Add(1)
	scratch.Put(nil)
	<-done
	last.n++        // want "the package variable last is assigned to"
	seen[s] = true  // want "the package variable seen is assigned to"
	delete(seen, s) // want "the package variable seen is emptied"
	p := &table     // want "the package variable table has its address taken"
	months := months
	months = nil
	_ = months
	return p[0] + len(word.FindString(s)) + filled[1]
}

var _ = use
