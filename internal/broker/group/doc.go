// Package group holds the state of consumer groups: members, generations and assignments of the classic, the
// consumer and the streams protocol, and the offsets a group has committed, including those that wait for a transaction.
//
// Everything here is a step machine. A method is one step: it is given the time, changes the state and returns what has
// to happen outside, the answers to send and whether the group's record must be stored before they go out. There is no
// clock, goroutine, lock or disk in here; package broker has them.
package group
