// Package loadtest simulates patients, doctors and screens on running servers and
// checks every update that a client receives against the truth.
//
// It uses HTTP and WebSocket only and shares no code with the server, so that a
// mistake in the server is not repeated in the check. It computes the truth from
// the order in which it made its own changes.
//
// Each scenario has a file. The packages below it have one concern each:
//
//   - client has the HTTP API and a client's live connection
//   - check has the truth and compares it with what clients received
//   - report has the outcome as text, JSON and HTML
//
// There are two kinds of truth. replay and day follow each patient through
// everything that may happen: check.Queue has every state that was true. queue,
// floor and centrifugo have thousands of patients and one kind of change: a
// position is the rank minus the departures, and check.Checker compares it once the
// departures up to that time are known. traffic.go makes the changes; workers.go
// holds the clients, in this process or in others.
//
// hooks.go and pushes.go receive what leaves the service: webhooks and the pushes
// for Google's FCM.
//
// The package has no queue rules beyond what a patient can see and imports nothing
// of the server.
package loadtest
