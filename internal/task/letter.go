package task

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/moldau/moldau/internal/flow"
)

// Headers of a dead letter, as in KIP-1034. Their values are text.
const (
	letterException  = "__streams.errors.exception"
	letterMessage    = "__streams.errors.message"
	letterStacktrace = "__streams.errors.stacktrace"
	letterTopic      = "__streams.errors.topic"
	letterPartition  = "__streams.errors.partition"
	letterOffset     = "__streams.errors.offset"
)

// letter is the record in hand as a dead letter: as it was read, and what went wrong with it. Where there is none, or
// what went wrong is no result of it alone, key and value are null.
func (t *Task) letter(topic *flow.Topic, e *Error) *flow.Out {
	c := &t.ctx
	o := &flow.Out{Topic: topic, Partition: -1, Time: max(c.Time, 0)}
	if t.hand != nil && t.record != nil && c.Input > 0 {
		rec := copied(t.record)
		o.Key, o.Value, o.Headers = rec.Key, rec.Value, rec.Headers
		if rec.Key != nil {
			o.Partition = flow.Partition(rec.Key, topic.Partitions)
		}
	}
	message, trace := e.Err.Error(), e.Error()
	if p, ok := errors.AsType[*flow.Panic](e.Err); ok {
		message, trace = fmt.Sprintf("panic: %v", p.Value), string(p.Stack)
	}
	var from []byte
	if e.Topic != "" {
		from = []byte(e.Topic)
	}
	o.Headers = append(o.Headers,
		flow.Header{Key: letterException, Value: fmt.Appendf(nil, "%T", e.Err)},
		flow.Header{Key: letterMessage, Value: []byte(message)},
		flow.Header{Key: letterStacktrace, Value: []byte(trace)},
		flow.Header{Key: letterTopic, Value: from},
		flow.Header{Key: letterPartition, Value: strconv.AppendInt(nil, int64(e.Partition), 10)},
		flow.Header{Key: letterOffset, Value: strconv.AppendInt(nil, e.Offset, 10)})
	return o
}

// post writes a dead letter in the current epoch.
func (t *Task) post(o *flow.Out) {
	if o != nil {
		t.effects.Records = append(t.effects.Records, *o)
	}
}

// copied is a record that may outlive the buffers of the client.
func copied(rec *flow.In) *flow.In {
	to := &flow.In{Offset: rec.Offset, Time: rec.Time, Key: clone(rec.Key), Value: clone(rec.Value)}
	for _, h := range rec.Headers {
		to.Headers = append(to.Headers, flow.Header{Key: h.Key, Value: clone(h.Value)})
	}
	return to
}

// clone keeps null.
func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}
