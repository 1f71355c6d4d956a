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
// A connection has one goroutine at a time. While the client is silent it
// waits on the smallest of stacks (conn.listen); when something has come,
// another takes it in and handles the commands in order (conn.read). Writing is
// done by as many workers as there are processors, which exist only while a
// connection has something to be sent (sending). Each connection gets all it
// waits for in one frame and one write that never blocks (socket); what the
// kernel does not take is drained by a goroutine that exists only then, and
// until it has gone nothing more is put together for that client, so that it
// is told the newest state. A client that reads nothing for WriteTimeout (10 s)
// is disconnected: the kernels' buffers may hide that, so a client that was sent a
// publication is pinged soon after and has PongTimeout to answer. A frame has to
// arrive within FrameTimeout once it has begun. A client with more than 64 KiB of
// pending publications is closed with 3008 and may reconnect.
//
// An organization has one goroutine that turns what the mirror said into
// publications, only while there is something to do, and sometimes one that
// asks the database. One goroutine looks after pings and deadlines of all.
//
// Locks are taken in this order, and never held while waiting for the network:
// organization.inboxMu or organization.mu (never both), Hub.mu, a mirror's
// View, conn.mu, then sending.mu or socket.mu.
//
// # Cost
//
// A change of a queue costs a pass over the bookings watched here that stand
// behind it, each a rank in the mirror, and one write to each connection whose
// place changed. A burst costs as many passes as there is time for, not as many
// as it has changes. An idle connection costs its pings and about 7 KB, its
// goroutine and buffers included.
//
// # Life cycle
//
// New starts the hub and makes it the listener of the mirrors; Shutdown tells
// the clients to reconnect (to another node), waits for them and ends all
// goroutines.
package realtime
