// Package notify is everything that leaves the house: pushes to phones,
// webhooks, and messages by e-mail, SMS and WhatsApp.
//
// A change of a booking leaves an event and a job behind in its own
// transaction (booking/store). The job expands the event, once, into what has
// to be sent: a job for each delivery, in one transaction with the mark that
// it was expanded. Every job looks at the state again before it sends. What
// has been sent is written down at once, so after a crash only what was under
// way at that moment may go out twice, and then with the same id.
//
// Places in a queue are no events but a state: a change marks the queue, and a
// sweep a moment later tells each waiting patient the place that differs from
// the last one told.
//
// It decides nothing about bookings, and nothing here answers HTTP.
package notify
