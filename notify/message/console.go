package message

import (
	"context"
	"fmt"
	"io"
)

// console shows messages to the developer at the terminal. They hold codes and
// addresses, so they are printed, never logged.
type console struct {
	method string
	out    io.Writer
}

func (c *console) send(_ context.Context, t outgoing) (string, error) {
	subject := ""
	if c.method == methodEmail {
		subject = t.Subject + "\n"
	}
	if _, err := fmt.Fprintf(c.out, "── %s to %s ──\n%s%s\n", c.method, t.To, subject, t.Body); err != nil {
		return "", &sendError{Code: "console", Cause: err}
	}
	return "", nil
}
