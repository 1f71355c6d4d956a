// Package check has the truth about queues and compares it with what clients received.
package check
