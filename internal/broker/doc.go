// Package broker is Moldau's bundled broker: one node that speaks Kafka's protocol to unmodified clients, over TCP and
// within its own process, and keeps what it acknowledged.
//
// It has the catalog of topics, the group and the transaction coordinator, and the handlers of the protocol's requests;
// the records are package log's. Answers follow one rule: state is changed in memory in the order of the log, and an
// answer goes out once the last write it depends on is durable. There is one log, so that order holds for everything, and
// the protocol's in-between states (a transaction being prepared, an offset being committed) exist only as the wait for a write.
//
// It refuses to replicate: a second node is what a real cluster is for.
package broker
