// Package models holds what more than one room of the house shares: entities
// and their ids, the statuses and stages of a booking with the one table of
// legal transitions, event payloads and the catalogue of error codes.
//
// It never holds gin, Redis or SQL, reads no clock and imports nothing of ours.
// A type enters it only when two rooms need it; request and response bodies
// live in handlers, rows nobody else looks at live beside their queries.
package models
