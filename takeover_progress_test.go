package moldau_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// committed is how much of its input an application has committed.
func (h *handover) committed(a *handed) (n int64) {
	offsets, err := h.admin.FetchOffsets(h.context(), a.app)
	if err != nil { // offsets of a transaction that is open: it will not be long
		return 0
	}
	offsets.Each(func(o kadm.OffsetResponse) {
		if strings.HasPrefix(o.Topic, a.takeover.name) {
			n += o.At
		}
	})
	return n
}

// begun waits until all of them have committed something.
func (h *handover) begun(all []*handed) {
	h.t.Helper()
	for end := time.Now().Add(takeoverPatience); slices.ContainsFunc(all, func(a *handed) bool { return h.committed(a) == 0 }); time.Sleep(10 * time.Millisecond) {
		h.doomed.failed()
		if time.Now().After(end) {
			h.t.Fatal("not all that are to be killed have committed something")
		}
	}
}

// abandoned waits until the group has given up a process that was killed.
func (h *handover) abandoned(a *handed) {
	h.t.Helper()
	for end := time.Now().Add(takeoverPatience); ; time.Sleep(50 * time.Millisecond) {
		groups, err := h.admin.DescribeGroups(h.context(), a.app)
		if err == nil && groups[a.app].Err == nil && groups[a.app].State == "Empty" {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("group %s is not empty in time: %v, %v", a.app, groups[a.app], err)
		}
	}
}

// quiet waits until all applications have processed and committed all there is.
func (h *handover) quiet() {
	h.t.Helper()
	busy := ""
	end := time.Now().Add(takeoverPatience)
	for left := h.apps; len(left) > 0; {
		if a := left[0]; h.idle(a, &busy) {
			left = left[1:]
			continue
		}
		h.java.failed()
		if a := left[0]; a.ours != nil {
			select {
			case err := <-a.ours.done:
				a.ours.done = nil
				h.t.Fatalf("%s has stopped: %v", a.app, err)
			default:
			}
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s is not done in time: %s", left[0].app, busy)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// idle says whether an application has read and committed all of its input, and of its own topics. Read from left to right: what
// was written into one of those has been committed before.
func (h *handover) idle(a *handed, why *string) bool {
	for range 2 {
		topics, err := h.admin.ListTopics(h.context())
		if err != nil {
			h.t.Fatal(err)
		}
		names := []string{a.takeover.name + "-a", a.takeover.name + "-b"}
		for _, name := range topics.Names() {
			if strings.HasPrefix(name, a.app+"-") && (strings.HasSuffix(name, "-repartition") || strings.HasSuffix(name, "-topic")) {
				names = append(names, name)
			}
		}
		committed, err := h.admin.FetchOffsets(h.context(), a.app)
		if err != nil {
			*why = err.Error()
			return false
		}
		starts, err := h.admin.ListStartOffsets(h.context(), names...)
		if err != nil {
			h.t.Fatal(err)
		}
		ends, err := h.admin.ListCommittedOffsets(h.context(), names...)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, name := range names {
			for partition, end := range ends[name] {
				if name == "windows-b" || name == "sessions-b" || name == "suppress-b" {
					continue // nobody reads it
				}
				at := starts[name][partition].Offset // what has been read of a repartition topic is deleted
				if o, ok := committed.Lookup(name, partition); ok {
					at = max(at, o.At)
				}
				if at < end.Offset && h.unread(name, partition, at, end.Offset) {
					*why = fmt.Sprintf("%s[%d]: %d of %d", name, partition, at, end.Offset)
					return false
				}
			}
		}
	}
	return true
}

// unread says whether there is a record between two offsets, and not only the markers of transactions.
func (h *handover) unread(topic string, partition int32, from, to int64) bool {
	ctx := h.context()
	cl := h.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}))
	defer cl.Close()
	for {
		for _, r := range cl.PollFetches(ctx).Records() {
			if !r.Attrs.IsControl() {
				return r.Offset < to
			}
			if r.Offset+1 >= to {
				return false
			}
		}
		if ctx.Err() != nil {
			h.t.Fatalf("%s[%d] cannot be read from %d to %d", topic, partition, from, to)
		}
	}
}
