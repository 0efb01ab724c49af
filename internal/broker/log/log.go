// Package log keeps what the broker was given: record batches by partition, and one keyed table of the coordinators'
// records (topics, groups, transactions). Everything enters through one shared group-commit log; batches are copied on
// to the segments of their partitions later. It validates batches, numbers them, guards idempotent producers, knows
// the last stable offset and the aborted transactions, compacts, deletes and recovers.
//
// It refuses to know the wire protocol, groups or who may do what: package broker does.
package log
