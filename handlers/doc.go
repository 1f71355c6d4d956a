// Package handlers is the service's front door: routes, request and response
// types, authentication, the mapping of errors and the OpenAPI document. Every
// route is one operation that says who may call it as data; the one document
// is made from the same operations.
//
// It also answers the live server's questions (Live), so that a snapshot shows
// the same booking as an HTTP answer.
//
// A struct that others embed in a request or an answer has an exported name:
// the API framework overlooks the fields of any other.
//
// It decides who may ask. What may happen to a booking is decided in booking,
// and no query, transaction or Redis command lives here.
package handlers
