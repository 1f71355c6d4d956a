// Package loadtest plays patients, doctors and screens against running servers
// and checks what every client was told against the truth.
//
// It speaks HTTP and WebSocket only and shares no code with the server, so a
// mistake there cannot hide behind the same mistake here. The truth is computed
// by the package itself from the order in which it made its own changes.
//
// One file for each concern: trace.go and generate.go hold visits, api.go the
// HTTP calls, live.go one client's live connection, truth.go what is true and
// what each client was told, report.go the outcome. A scenario (replay.go) puts
// them together; another scenario is another file beside it.
//
// What never lives here: rules of the queue beyond what a patient can see, and
// anything imported from the server's packages.
package loadtest
