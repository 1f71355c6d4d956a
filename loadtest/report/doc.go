// Package report has the outcome of a load test: figures, curves, series and faults, as
// text, JSON and HTML.
package report
