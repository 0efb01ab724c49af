package window_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/window"
)

func ExampleTimeWindows_For() {
	w := window.Hopping(10*time.Second, 5*time.Second)
	fmt.Println(slices.Collect(w.For(12_000)))
	// Output: [5000 10000]
}

func ExampleTimeWindows_Closed() {
	w := window.Tumbling(time.Minute).Grace(10 * time.Second)
	fmt.Println(w.Closed(0, 69_999), w.Closed(0, 70_000))
	// Output: false true
}

func ExampleTimeWindows_Validate() {
	fmt.Println(window.Hopping(time.Minute, time.Hour).Grace(-1).Validate())
	// Output:
	// window: windows of 1m0s advance by 1h0m0s; the advance must be positive and no more than the size
	// window: the grace period is -1ns; it must not be negative
	// window: the grace period is -1ns; time is counted in whole milliseconds
}

func ExampleTimeKey() {
	s := window.TimeKey(serde.String, time.Hour)
	k, _ := s.Decode([]byte("ORD\x00\x00\x00\xe4\x11\xae\x9e\x80"))
	fmt.Println(k)
	// Output: ORD@2001-01-15T09:00:00.000Z/2001-01-15T10:00:00.000Z
}
