// Package webhook sends events to the receivers of organizations, signed as Standard
// Webhooks, in order for each booking, until they are accepted or three days have
// passed.
//
// A delivery is a row that one job attempts until it is settled. A circuit breaker
// keeps a dead or slow receiver from slowing down the others.
package webhook
