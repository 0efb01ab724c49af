// Package wire reads frames of the Kafka protocol safely. It takes them off a connection, parses their headers and walks
// their bodies before kmsg decodes them: kmsg 1.15 believes the lengths and counts it reads, so that seven bytes can cost
// it a minute and a half of CPU, and one byte of an array a hundred bytes of memory.
//
// It refuses to interpret requests: package broker does.
package wire
