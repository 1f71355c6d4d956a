package main

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
	// quiet is how long a connection has been of no use when it may be closed:
	// whoever sends requests one after another has been answered and asked to go
	// elsewhere by then. Closed earlier, a connection could take a request with it.
	quiet = time.Second
	// maxLeave bounds the wait for connections that never fall quiet.
	maxLeave = 3 * time.Second
	// leaveStep is the time between two looks.
	leaveStep = 20 * time.Millisecond
)

// connections are those of the HTTP server that no live client has taken over.
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

// leave waits until no connection has been in use for a time, or until it has
// waited enough, and closes those nothing ever came over, which the server
// would wait for.
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
