// Package realtime serves live connections: it speaks the Centrifuge client protocol,
// JSON and Protobuf, over WebSocket, and sends each client the changes that concern it.
// It writes to no database. What is not in a mirror of the queues is read from a [Source].
//
// # Usage
//
// A client subscribes to booking:<id>, queue:<resourceId> or display:<id>. The reply to
// the subscribe command holds the state; publications hold the changes since.
//
//	hub := realtime.New(realtime.Options{Source: source, Mirrors: mirrors, Log: log, Now: now})
//	http.Handle("/connection/websocket", hub)
//	...
//	err := hub.Shutdown(ctx)
//
// [New] starts the hub and makes it the listener of the mirrors. [Hub.Shutdown] asks the
// clients to reconnect to another node, waits for them and ends all goroutines.
//
// # Guarantees
//
//  1. No change falls between the state in the reply and the publications after it, and
//     no publication is older than that state: a subscription is registered before its
//     state is read, and receives changes only after the reply is queued.
//  2. A client receives no older position after a newer one, and no position twice in a
//     row: positions come from the mirror alone and are computed under the lock of the
//     organization. A newer position replaces one that is not sent yet.
//  3. A client receives each event once: a subscription remembers the version of its
//     booking that it received last, so a repeated delta, a repair or a catch-up after a
//     lost connection to Redis changes nothing for clients that are up to date.
//  4. After a mirror was loaded again (a gap, a lost connection, a new epoch), every
//     position is computed again, and the source is asked about the bookings that do not
//     wait.
//  5. Nothing is sent, and no source is asked, while a lock is held.
//
// # Bounds
//
// A client that reads nothing for WriteTimeout (10 s) is disconnected. The buffers of
// the kernels may hide that, so a client that was sent a publication is pinged soon
// after and has PongTimeout (6 s) to answer. A client with more than 64 KiB of pending
// publications is closed with 3008 and may reconnect. A frame has to arrive within
// FrameTimeout (10 s) once it has begun.
//
// # Goroutines
//
// A connection has one goroutine. While its client is silent, the goroutine waits on the
// smallest possible stack (conn.listen); when a frame arrives, another reads it and
// handles its commands in order (conn.read). There are as many writers as processors,
// which exist only while a connection has something to send (writeScheduler). A
// connection gets all its publications in one frame and one write that does not block
// (socket). A goroutine that exists only then drains what the kernel does not take;
// meanwhile no more is encoded for that client, so that it receives the newest state.
//
// An organization has one goroutine that turns changes of its mirror into publications,
// only while there are any, and sometimes one that asks the source. One goroutine
// watches the pings and deadlines of all connections.
//
// # Locks
//
// ARCHITECTURE.md has their order.
//
// # Cost
//
// A change of a queue costs a pass over the watched bookings behind it, each a rank in
// the mirror, and one write to each connection whose position changed. During a burst
// of changes, one pass handles all that have arrived since the last. An idle connection
// costs its pings and about 7 KB, with its goroutine and buffers.
package realtime
