package outbox

import (
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"

	"code.dny.dev/ssrf"
)

// The reasons for a failed attempt in the delivery log. Organizations read that log,
// so it holds nothing else: an error's own text may name resolvers, proxies and
// addresses inside the network.
const (
	FailureDNS        = "dns"               // the name could not be resolved
	FailureForbidden  = "forbidden_address" // the name leads to an address that is not on the public internet
	FailureRefused    = "refused"           // the connection was refused
	FailureUnreach    = "unreachable"       // there is no route to the address
	FailureTimeout    = "timeout"           // no answer in time
	FailureTLS        = "tls"               // the handshake failed, or the certificate is not valid
	FailureClosed     = "closed"            // the connection ended before the answer
	FailureProtocol   = "protocol"          // what came is not an HTTP answer
	FailureRedirect   = "status_3xx"        // redirects are not followed
	FailureClientSide = "status_4xx"
	FailureServerSide = "status_5xx"
)

// FailureOf returns the reason of an error of the HTTP client. handshake reports that
// the TLS handshake failed, because its errors have no type in common.
func FailureOf(err error, handshake bool) string {
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP) || errors.Is(err, ssrf.ErrProhibitedNetwork):
		return FailureForbidden
	case isA[*net.DNSError](err):
		return FailureDNS
	case ok && timeout.Timeout():
		return FailureTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return FailureRefused
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH):
		return FailureUnreach
	case handshake || errors.Is(err, http.ErrSchemeMismatch):
		return FailureTLS
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return FailureClosed
	}
	return FailureProtocol
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// FailureOfStatus returns the reason of an answer, or "" for a success.
func FailureOfStatus(status int) string {
	switch {
	case status >= http.StatusOK && status < http.StatusMultipleChoices:
		return ""
	case status < http.StatusOK:
		return FailureProtocol
	case status < http.StatusBadRequest:
		return FailureRedirect
	case status < http.StatusInternalServerError:
		return FailureClientSide
	}
	return FailureServerSide
}
