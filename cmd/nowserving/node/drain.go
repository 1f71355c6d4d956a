package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// quiet is how long a connection has to be idle before it is closed. By then, a
	// client that sends requests one after another has got Connection: close. Closing
	// earlier could lose a request.
	quiet = time.Second
	// maxLeave bounds the wait for connections that are never idle.
	maxLeave = 3 * time.Second
	// leaveStep is the time between two checks.
	leaveStep = 20 * time.Millisecond
)

// connections are the connections of the HTTP server, without those of live clients.
type connections struct {
	mu  sync.Mutex
	all map[net.Conn]connection
}

type connection struct {
	used  time.Time
	fresh bool // nothing came over it yet
}

func newConnections() *connections { return &connections{all: map[net.Conn]connection{}} }

// note is the server's ConnState.
func (cs *connections) note(c net.Conn, state http.ConnState) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(cs.all, c)
	default:
		cs.all[c] = connection{time.Now(), state == http.StateNew}
	}
}

// leave waits until no connection has been in use for a time, at most maxLeave. It
// closes connections that were never used, because the server would wait for them.
func (cs *connections) leave(ctx context.Context, unused time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, maxLeave)
	defer cancel()
	ticker := time.NewTicker(leaveStep)
	defer ticker.Stop()
	for cs.busy(unused) && ctx.Err() == nil {
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var errs []error
	for c, seen := range cs.all {
		if !seen.fresh || time.Since(seen.used) < unused {
			continue
		}
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("close an unused connection: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (cs *connections) busy(unused time.Duration) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, seen := range cs.all {
		if time.Since(seen.used) < unused {
			return true
		}
	}
	return false
}
