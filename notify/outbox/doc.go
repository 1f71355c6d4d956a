// Package outbox holds what the channels of deliveries share: the event that is being
// expanded, the steps that write deliveries, the queues of jobs, the counts of
// outcomes and the reasons of failures. It sends nothing itself.
package outbox
