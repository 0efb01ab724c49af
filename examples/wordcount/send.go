package main

import (
	"bufio"
	"context"
	"io"
	"log"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
)

// send writes what it reads to the topic lines, as any Kafka client would. The topic comes into being as the application
// starts; until then the client tries again.
func send(ctx context.Context, app *moldau.App, from io.Reader) {
	client, err := kgo.NewClient(append(app.Client(), kgo.DefaultProduceTopic(lines.Name()), kgo.UnknownTopicRetries(-1))...)
	if err != nil {
		log.Print(err)
		return
	}
	defer client.Close()
	for in := bufio.NewScanner(from); in.Scan(); {
		client.Produce(ctx, kgo.StringRecord(in.Text()), func(_ *kgo.Record, err error) {
			if err != nil && ctx.Err() == nil {
				log.Print("a line was not sent: ", err)
			}
		})
	}
	if err := client.Flush(ctx); err != nil && ctx.Err() == nil {
		log.Print(err)
	}
}
