// Package loadtest plays patients, doctors and screens against running servers
// and checks what every client was told against the truth.
//
// It speaks HTTP and WebSocket only and shares no code with the server, so a
// mistake there cannot hide behind the same mistake here. The truth is computed
// by the package itself from the order in which it made its own changes.
//
// One file for each concern: trace.go and generate.go hold visits, api.go the
// HTTP calls, conn.go and frame.go one client's live connection, report.go the
// outcome. A scenario is a file that puts them together.
//
// Two kinds of truth. replay and day follow each patient through all that may
// happen, and truth.go keeps every state that was true for each. queue, floor and
// centrifugo have thousands of patients and one kind of change: there a position
// is the rank less the departures, and checker.go checks what clients noted down
// once the departures of that time are known. traffic.go makes the changes, workers.go
// holds the clients, here or in processes of their own.
//
// hooks.go and pushes.go stand at the other end of what leaves the house: they
// are the receivers of webhooks and Google's FCM.
//
// What never lives here: rules of the queue beyond what a patient can see, and
// anything imported from the server's packages.
package loadtest
