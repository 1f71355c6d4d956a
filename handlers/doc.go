// Package handlers holds the routes of the product: the HTTP API and what the
// operator calls. Each file is one resource of
// the API; what its operations have in common is in package api.
//
// Handlers decide how a request and an answer look. The rules are in the packages
// below: booking, access, catalog and notify.
//
// Package live answers the live server with the same views of bookings.
package handlers
