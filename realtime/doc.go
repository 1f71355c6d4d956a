// Package realtime keeps the live connections: it speaks the Centrifuge client
// protocol over WebSocket and tells each client what concerns it.
package realtime
