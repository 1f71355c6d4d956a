// Package realtime keeps the live connections: it speaks the Centrifuge client
// protocol (JSON and Protobuf) over WebSocket and tells each client what
// concerns it. It never decides anything about a visit, writes nothing to a
// database and asks for everything it can't know through the interface Source.
//
// # Channels
//
// booking:<id>, queue:<resourceId> and display:<id>. The reply to a subscribe
// command carries the state; publications carry what changed since.
//
// # Invariants
//
//   - A subscription is registered before its state is read, and told of
//     changes only after its snapshot is queued. So no change falls between the
//     two, and none older than the snapshot follows it.
//   - Positions come from the mirror alone, all of them decided under the
//     organization's lock: a client never hears an older one after a newer one,
//     nor the same twice. A newer position replaces one that is not sent yet.
//   - Each subscription remembers the version of its booking it was told last.
//     An event is told when it is newer, so a repeated delta, a repair or a
//     catch-up after a lost link changes nothing for those who know already.
//   - After a load of the mirror (a gap, a lost link, a new epoch) every local
//     position is computed anew, and the database is asked about the bookings
//     that don't wait.
//   - Nothing is sent, and no source is asked, while a lock is held.
//
// # Goroutines and locks
//
// A connection has one goroutine that reads and handles its commands one after
// another, and one that writes, which exists only while there is something to
// write; a client that does not read holds up nobody else. An organization has
// one that turns what the mirror said into publications, only while there is
// something to do, and sometimes one that asks the database. One goroutine
// looks after pings and deadlines of all. Locks are taken in this order, and
// held by nobody who waits for the network: organization.inboxMu or
// organization.mu (never both), Hub.mu, a mirror's View, conn.mu.
//
// # Life cycle
//
// New starts the hub and makes it the listener of the mirrors; Shutdown tells
// the clients to reconnect (to another node), waits for them and ends all
// goroutines.
package realtime
