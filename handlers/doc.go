// Package handlers holds the routes of the product: the HTTP API and the pages and
// probes of the operator. Each file is one resource of the API: its bodies and views,
// its route function, which is the table of its operations, and a method for each
// operation. A method has the operationId as its name. What all operations have in
// common is in package api.
//
// Handlers decide how a request and an answer look. The rules are in the packages
// below: booking, access, catalog and notify.
//
// Package live gives the live server the same views of bookings.
package handlers
