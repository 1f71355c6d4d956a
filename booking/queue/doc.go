// Package queue keeps who waits where, in Redis and in memory.
//
// The database is the truth; Redis holds an index of it that can be lost at
// any moment, and each node holds a Mirror of the index for the organizations
// it serves. The index has, per organization, one sorted set for each resource
// and each booking type (the score is priority and join sequence), a record of
// each waiting booking, and a version. All keys of an organization share a
// hash tag, so one script touches them atomically on Redis Cluster too.
//
// A change is one command: the script apply.lua puts a booking into exactly
// the queues named, refuses a booking version older than it has seen, raises
// the organization's version and publishes one Delta, whatever the length of
// the queues. Because a change states where a booking stands rather than what
// happened, applying it twice or repairing it later is harmless.
//
// An epoch names each life of the index. It is lost with the data, and then
// the index is rebuilt from the database. A Mirror applies deltas in version
// order; after a gap, a new epoch or a broken connection it calls itself stale
// until it has compared the index with the database and loaded it again. While
// Redis is away, a Mirror is read from the database once a second, so that live
// clients go on being told the truth.
//
// Nothing here knows HTTP, live connections or the rules of a visit; the
// waiting bookings come in through the interface Truth.
package queue
