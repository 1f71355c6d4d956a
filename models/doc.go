// Package models holds what several packages share: entities and their ids, the
// statuses and stages of a booking with the table of legal transitions, event
// payloads and the catalogue of error codes.
//
// It has no gin, Redis, SQL or HTTP status, reads no clock and imports nothing of ours.
// A type is here only if two packages need it. Request and response bodies are in
// handlers, and the rows of one package are beside its queries.
package models
