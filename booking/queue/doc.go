// Package queue keeps the order of the waiting bookings, in Redis and in memory.
//
// The database is the truth. Redis holds an index of it, which can be lost at any
// moment. Each node holds a [Mirror] of the index for the organizations it serves. The
// package knows no HTTP, no live connections and no rules of a visit; it reads waiting
// bookings through a [Source].
//
// # Usage
//
//	index := queue.NewIndex(rdb, source, log)
//	mirrors := queue.NewMirrors(index, time.Now, log)
//	go mirrors.Run(ctx)
//	...
//	at, err := index.Put(ctx, organizationID, entry, event) // after each committed change
//	mirror, ok := mirrors.At(ctx, organizationID, at)       // positions that include it
//
// # The index
//
// An organization has one sorted set for each resource and each booking type, whose
// score is priority and join sequence, a record of each waiting booking, and a version.
// All its keys share a hash tag, so that one script changes them atomically, on Redis
// Cluster too.
//
// A change is one command. The script apply.lua puts a booking into exactly the queues
// named, raises the organization's version and publishes one [Delta], whatever the
// length of the queues.
//
// # Guarantees
//
//  1. Applying a change twice, or repairing it later, is harmless: a change states where
//     a booking stands, not what happened.
//  2. An older version of a booking never replaces a newer one.
//  3. A mirror applies deltas in the order of their versions. After a gap, a new epoch or
//     a lost connection it is stale until it has been loaded again.
//  4. A mirror that is live has missed nothing: commands are answered in order, so an
//     answered ping proves that every delta before it has arrived. Without an answer for
//     three seconds a mirror is no longer live, and states since when.
//  5. A lost index is rebuilt by one node, and the others wait for it.
//
// # Epochs
//
// An epoch names each life of the index. It is lost with the data. Then one node takes a
// lock, reads the waiting bookings in pages and adds them in pieces that occupy Redis
// for some milliseconds each. Changes that are committed meanwhile apply to the bookings
// that are there already. The last step sets the new epoch. An index that differs too
// much from the database is replaced in the same way, and so is one after a change of
// the catalogue that moves several bookings, so that they move at one moment.
//
// # Loading a mirror
//
// A mirror reads the index in pages between two versions and applies the deltas from the
// first to the second. Each delta states where its booking stands, so the result is the
// index at the second version. While Redis is away, a mirror is read from the database
// once a second. When Redis is back, nodes read the indexes over the time of a second,
// not all at once.
//
// # Connections
//
// A node has one connection that subscribes and pings. On a cluster with sharded pub/sub
// (Redis 7) it has one to each shard, and a delta stays on its shard.
//
// # Comparison
//
// Each node checks every second whether an index still exists. One node at a time
// compares an organization's index with the database: every two seconds the number and
// the versions of waiting bookings; every fifteen seconds, or if those differ, every
// booking, in pages.
package queue
