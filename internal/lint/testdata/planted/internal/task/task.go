// Package task breaks the rules of the core.
package task

import (
	"maps"
	"math/rand/v2"
	"os" // want "files, processes and the network come through a seam"
	"slices"
	"sync"
	"time"
)

// Step does all that a step must not.
func Step(m map[string]int) (out []string) {
	go Step(nil)          // want "the core starts no goroutine"
	now := time.Now()     // want "time is passed in"
	late := time.Since    // want "time is passed in"
	time.Sleep(late(now)) // want "time is passed in"
	_ = time.Duration(3).Hours()
	_ = rand.IntN(3) // want "chance is passed in"
	_ = rand.New(rand.NewPCG(1, 2)).IntN(3)
	_, _ = os.Getwd()
	for k := range m { // want "map order must not reach an output"
		out = append(out, k)
	}
	for k := range m { //lint:ordered sorted below
		out = append(out, k)
	}
	//lint:ordered the sum is the same in any order
	for _, n := range m {
		_ = n
	}
	for k := range m { /* want "gives no reason" */ //lint:ordered
		_ = k
	}
	out = append(out, slices.Collect(maps.Keys(m))...) // want "map order must not reach an output"
	out = append(out, slices.Sorted(maps.Keys(m))...)
	out = slices.AppendSeq(out, maps.Keys(m)) // want "map order must not reach an output"
	var wg sync.WaitGroup
	wg.Go(func() {}) // want "the core starts no goroutine"
	//lint:clock nothing below reads it: want "excuses nothing here"
	slices.Sort(out)
	return out
}
