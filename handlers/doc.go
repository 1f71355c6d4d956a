// Package handlers holds the routes of the product: the HTTP API, the snapshots of
// the live connection, and what the operator calls. Each file is one resource of
// the API; what its operations have in common is in package api.
//
// Handlers decide how a request and an answer look. The rules are in the packages
// below: booking, access, catalog and notify.
//
// The live server asks a [Live] for snapshots, so a snapshot shows the same booking
// as an HTTP answer.
package handlers
