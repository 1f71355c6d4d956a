// Package notify sends everything that leaves the service: pushes to phones,
// webhooks, and messages by e-mail, SMS and WhatsApp.
//
// A change of a booking writes an event and a job in its own transaction
// (booking/store). The job expands the event, once, into a job for each delivery, in
// one transaction with the mark that it was expanded. Every job checks the state
// again before it sends. What was sent is logged at once, so after a crash only what
// was under way may go out twice, and then with the same id.
//
// Positions in a queue are a state, not events: a change marks the organization, and
// a sweep soon after sends each waiting booking's position if it differs from the
// last one sent.
//
// The package decides nothing about bookings and answers no HTTP requests.
package notify
