// Command wordcount counts the words of the lines it is sent, and prints each new count.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
)

var (
	lines  = stream.NewTopic("lines", serde.Bytes, serde.String)
	byWord = stream.NewRepartition("by-word", serde.String, serde.String)
	counts = state.NewKeyValue("counts", serde.String, serde.Int64)
	totals = stream.NewTopic("totals", serde.String, serde.Int64)
)

func wordCount(b *stream.Builder) {
	b.Stream(lines).
		FlatMapValues(strings.Fields).
		GroupBy(byWord, func(_ []byte, word string) string { return word }).
		Count(counts).
		ToStream().
		Peek(func(word string, n int64) { fmt.Println(word, n) }).
		To(totals)
}

func main() {
	b := stream.NewBuilder()
	wordCount(b)
	topology, err := b.Build()
	if err != nil {
		log.Fatal(err)
	}
	app, err := moldau.New("wordcount", topology, moldau.Config{}) // no brokers: the built-in one
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	go send(ctx, app, os.Stdin) // what you type
	if err := app.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
