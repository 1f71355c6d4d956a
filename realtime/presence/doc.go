// Package presence shares two facts about live connections between the nodes: how many
// a patient has (Connections), and which position each waiting patient was shown last
// (Positions).
//
// Both live in Redis and can be lost: while Redis is away, connections are not limited
// and pushes are sent to phones that are connected as well. The keys of a dead node
// expire. All keys of an organization share a hash tag, so each round trip goes to one
// slot of a Redis Cluster.
//
// The queue itself is in booking/queue, and the connections are in realtime.
package presence
