// Package histories judges a broker by what its clients saw: the records they sent and what they were told of them, the
// transactions and how those ended, the records and offsets they read. It names every way in which that cannot have been a
// log that keeps what it acknowledges, in order, once, and transactions all or nothing. The anomalies are those of
// Jepsen's tests of Kafka (jepsen.tests.kafka), whose names the kinds carry in their comments, and some about offsets.
//
// It is a pure function of a history: it runs no client and no broker, and knows no protocol. Kafka promises no isolation
// of writes, so records of transactions may lie between each other, and nothing here objects.
package histories
