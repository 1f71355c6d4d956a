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
// the index is rebuilt from the database: one node takes a lock, reads the
// waiting bookings in pages and adds them in pieces that keep Redis busy for
// some milliseconds each. Changes that are committed meanwhile are applied to
// what is there already, and a piece never replaces a newer version; the last
// step sets the epoch. The others wait for it. An index of which too much
// differs from the database is replaced in the same way, and so is one after a
// change of the catalogue that moves several bookings: they move at one moment.
//
// A Mirror applies deltas in version order; after a gap, a new epoch or a
// broken connection it calls itself stale until it has compared the index with
// the database and loaded it again. It reads the index in pages between two
// versions and applies the deltas from the first to the second: each delta says
// where its booking stands, so the result is the index at the second version.
// While Redis is away, a Mirror is read from the database once a second, so
// that live clients go on being told the truth.
//
// A node hears of changes over one link: a connection that subscribes and
// pings. On a cluster with sharded pub/sub (Redis 7) it has one to each shard,
// and a delta stays on its shard. Answers come in order, so an answered ping
// proves that nothing published before it was missed; without one for three
// seconds a mirror is no longer live and says as of when it is right. When Redis
// is back, nodes read the indexes anew over the time of a second, not all at
// once.
//
// Each node looks every second whether an index is still there. One node at a
// time looks after an organization in the background: every two seconds it
// compares how many wait, and with what versions, and everything, in pages,
// when that differs and every fifteen seconds.
//
// Nothing here knows HTTP, live connections or the rules of a visit; the
// waiting bookings come in through the interface Source.
package queue
