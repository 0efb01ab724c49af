package group

import "time"

// ExpiredOffsets returns the committed offsets whose retention is over. Those of a group with members are kept as long as
// a member subscribes to their topic, those that a transaction is about to change are kept anyway.
func (g *Classic) ExpiredOffsets(now time.Time, retention time.Duration, o *Offsets) []TopicPartition {
	var topics map[string]bool
	switch {
	case g.state == Empty || g.state == Dead:
	case g.state == Stable && g.protocolType == consumerType:
		var ok bool
		if topics, ok = g.subscribed(); !ok {
			return nil
		}
	default:
		return nil
	}
	// A group that had members is in use until the last one has left.
	var inUse time.Time
	if g.state == Empty && g.protocolType != "" {
		inUse = g.since
	}
	return expiredOffsets(now, retention, o, inUse, func(topic string) bool { return topics[topic] })
}

// ExpiredOffsets is the same for a group of the consumer protocol.
func (g *Consumer) ExpiredOffsets(now time.Time, retention time.Duration, o *Offsets) []TopicPartition {
	var inUse time.Time
	if len(g.members) == 0 {
		inUse = g.since
	}
	return expiredOffsets(now, retention, o, inUse, g.Subscribes)
}

func expiredOffsets(now time.Time, retention time.Duration, o *Offsets, inUse time.Time, subscribed func(topic string) bool) []TopicPartition {
	var expired []TopicPartition
	for _, e := range o.All() {
		if subscribed(e.Topic) || o.Unstable(e.TopicPartition) {
			continue
		}
		since := time.UnixMilli(e.CommitTime)
		if inUse.After(since) {
			since = inUse
		}
		end := since.Add(retention)
		if e.ExpireTime >= 0 {
			end = time.UnixMilli(e.ExpireTime)
		}
		if !end.After(now) {
			expired = append(expired, e.TopicPartition)
		}
	}
	return expired
}

// subscribed reads the topics the members of a consumer group subscribe to from what they tell their leader.
func (g *Classic) subscribed() (map[string]bool, bool) {
	topics := map[string]bool{}
	for _, m := range g.members {
		s, err := readSubscription(m.metadata(g.protocol))
		if err != nil {
			return nil, false
		}
		for _, t := range s.topics {
			topics[t] = true
		}
	}
	return topics, true
}

// Subscribes says whether a member of a consumer group subscribes to a topic; true where that cannot be known.
func (g *Classic) Subscribes(topic string) bool {
	if len(g.members) == 0 {
		return false
	}
	topics, ok := g.subscribed()
	return !ok || topics[topic]
}

// OffsetsDeletable says whether single offsets may be deleted: in a group with members only if it is one of consumers,
// because only their subscriptions can be read.
func (g *Classic) OffsetsDeletable() bool {
	return g.state == Empty || g.protocolType == consumerType && g.state != Dead
}
