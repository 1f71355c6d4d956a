// Package storetest gives tests real servers to run on: an empty PostgreSQL
// database of their own and a Redis process of their own. It is test support
// only: no other code imports it, and nothing here knows the schema.
//
// A server that is missing fails the test; it never skips it. `make test`
// installs and starts what is needed.
package storetest
