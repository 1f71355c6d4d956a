// Package presence shares between the nodes what each knows of its live
// connections: how many a patient has (Connections), and which position each
// waiting patient was shown last (Positions).
//
// Both live in Redis and can be lost: while Redis is away, connections are not
// limited and pushes are sent to phones that are connected as well. What a dead
// node has left behind expires. All keys of an organization share a hash tag, so
// each round trip goes to one slot of a Redis Cluster.
//
// What never lives here: the queue itself (booking/queue) and the connections
// (realtime).
package presence
