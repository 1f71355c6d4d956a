// Package client has the HTTP API and the live connection of a simulated client. The
// connection uses few resources, so that one process holds many thousands.
package client
