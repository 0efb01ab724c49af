package serde_test

import (
	"fmt"

	"github.com/moldau/moldau/serde"
)

func Example() {
	b, _ := serde.Int64.Encode(nil, 42)
	fmt.Printf("%x\n", b)

	_, err := serde.Int64.Decode([]byte("42"))
	fmt.Println(err)
	// Output:
	// 000000000000002a
	// serde: an int64 takes 8 bytes, got 2: "42"
}

func ExampleJSON() {
	type Flight struct {
		Origin string `json:"origin"`
		Delay  int    `json:"delay_min"`
	}
	b, _ := serde.JSON[Flight]().Encode(nil, Flight{"ORD", -3})
	fmt.Printf("%s\n", b)
	// Output: {"origin":"ORD","delay_min":-3}
}

func ExampleNull() {
	s := serde.Null(serde.String)
	gone, _ := s.Decode(nil)
	empty, _ := s.Decode([]byte{})
	fmt.Printf("%v %q\n", gone, *empty)
	// Output: <nil> ""
}
