package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// tidy deletes what a run left: its topics and its state directory. A comparison writes several gigabytes otherwise.
func (b *bench) tidy(ctx context.Context, name string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.address))
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	var mine []string
	for _, t := range topics.Names() {
		if strings.HasPrefix(t, name+"-") {
			mine = append(mine, t)
		}
	}
	if _, err := admin.DeleteTopics(ctx, mine...); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(b.dir, name))
}
