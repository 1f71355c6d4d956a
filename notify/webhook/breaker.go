package webhook

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// placesOfReceiver bounds the attempts under way to one receiver on a node.
	placesOfReceiver = 16
	// placeWait is how long a job waits for a slot. If an attempt has been under way
	// for longer, the receiver is slow, and jobs don't wait.
	placeWait = 250 * time.Millisecond
	// breakerFailures in a row open the breaker.
	breakerFailures = 5
	// The breaker stays open for breakerPause, and twice as long after each failed
	// probe.
	breakerPause    = 10 * time.Second
	breakerPauseMax = 5 * time.Minute
	// lineStart is the least time that a job without a slot waits for its turn.
	lineStart = time.Second
	// lineGap is the time between two jobs that check whether an open breaker has
	// closed.
	lineGap = 20 * time.Millisecond
	// lineMax bounds how far into the future turns are given out.
	lineMax = 5 * time.Minute
)

// receivers keep a dead or slow receiver from slowing down the others. Each has a
// circuit breaker and a bound on the attempts under way. A job that has to wait gets
// a turn later, at the rate at which the receiver has been answering: a thousand jobs
// that check again every second would keep the workers as busy as the receiver would.
type receivers struct {
	now func() time.Time
	mu  sync.Mutex
	of  map[string]*receiver
}

// receiver is the state of a scheme, host and port.
type receiver struct {
	places chan struct{}
	// users is the number of jobs that use the receiver. Without any it can be
	// dropped.
	users    int
	underway map[*slot]struct{}
	took     time.Duration // of late, on average
	turn     time.Time     // the last turn given out

	failures int // in a row
	pause    time.Duration
	// openUntil is when the breaker lets a probe through. Zero: it is closed.
	openUntil time.Time
	probing   bool
}

// slot is the right to make an attempt.
type slot struct {
	of     *receivers
	name   string
	began  time.Time
	probe  bool
	parent *receiver
}

func newReceivers(now func() time.Time) *receivers {
	return &receivers{now: now, of: map[string]*receiver{}}
}

// enter returns a slot, or how long to wait before asking again.
func (r *receivers) enter(ctx context.Context, name string) (*slot, time.Duration) {
	rc := r.use(name)
	r.mu.Lock()
	now := r.now()
	if wait := rc.closedFor(now); wait > 0 {
		defer r.mu.Unlock()
		r.release(name, rc)
		return nil, wait
	}
	slow := rc.oldest(now) >= placeWait
	r.mu.Unlock()

	if !rc.sit(ctx, slow) {
		r.mu.Lock()
		defer r.mu.Unlock()
		now := r.now()
		wait := rc.later(now, now.Add(lineStart), max(rc.took, rc.oldest(now))/placesOfReceiver)
		r.release(name, rc)
		return nil, wait
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now = r.now()
	if wait := rc.closedFor(now); wait > 0 { // it opened while the job waited
		<-rc.places
		r.release(name, rc)
		return nil, wait
	}
	p := &slot{of: r, name: name, began: now, parent: rc, probe: !rc.openUntil.IsZero()}
	rc.probing = rc.probing || p.probe
	rc.underway[p] = struct{}{}
	return p, 0
}

// sit takes a slot, and waits for one for placeWait unless the receiver is slow.
func (rc *receiver) sit(ctx context.Context, slow bool) bool {
	select {
	case rc.places <- struct{}{}:
		return true
	default:
	}
	if slow {
		return false
	}
	timer := time.NewTimer(placeWait)
	defer timer.Stop()
	select {
	case rc.places <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (r *receivers) use(name string) *receiver {
	r.mu.Lock()
	defer r.mu.Unlock()
	rc := r.of[name]
	if rc == nil {
		rc = &receiver{places: make(chan struct{}, placesOfReceiver), underway: map[*slot]struct{}{}}
		r.of[name] = rc
	}
	rc.users++
	return rc
}

// release drops a receiver that no job uses and that has no failures.
func (r *receivers) release(name string, rc *receiver) {
	rc.users--
	if rc.users == 0 && rc.failures == 0 && !rc.turn.After(r.now()) {
		delete(r.of, name)
	}
}

// forget drops receivers that have not been used for an hour.
func (r *receivers) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.now().Add(-time.Hour)
	for name, rc := range r.of {
		if rc.users == 0 && rc.openUntil.Before(before) && rc.turn.Before(before) {
			delete(r.of, name)
		}
	}
}

// closedFor returns how long a job has to wait for the breaker, or 0 if it is closed.
func (rc *receiver) closedFor(now time.Time) time.Duration {
	switch {
	case rc.openUntil.IsZero():
		return 0
	case now.Before(rc.openUntil):
		return rc.later(now, rc.openUntil, lineGap)
	case rc.probing:
		return rc.later(now, now.Add(attemptTimeout), lineGap)
	}
	return 0
}

// later returns when the next turn is: not before start, and gap after the last one.
func (rc *receiver) later(now, start time.Time, gap time.Duration) time.Duration {
	if rc.turn.Sub(now) > lineMax {
		return lineMax - rand.N(lineMax/4) //nolint:gosec // spreads load, guards nothing
	}
	if rc.turn.Before(start) {
		rc.turn = start
	}
	rc.turn = rc.turn.Add(max(gap, time.Millisecond))
	return rc.turn.Sub(now)
}

// oldest returns the age of the oldest attempt under way.
func (rc *receiver) oldest(now time.Time) time.Duration {
	var age time.Duration
	for p := range rc.underway {
		age = max(age, now.Sub(p.began))
	}
	return age
}

// health is what an attempt shows about its receiver.
type health int

const (
	healthUnknown health = iota // there was no attempt
	healthAlive
	healthDead // no answer, or one that says the receiver is broken
)

// leave gives the slot back.
func (p *slot) leave(o health) {
	r, rc := p.of, p.parent
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	delete(rc.underway, p)
	<-rc.places
	if p.probe {
		rc.probing = false
	}
	if o != healthUnknown {
		rc.took = (7*rc.took + now.Sub(p.began)) / 8
	}
	switch o {
	case healthAlive:
		rc.failures, rc.pause, rc.openUntil = 0, 0, time.Time{}
	case healthDead:
		rc.failures++
		if p.probe || rc.failures >= breakerFailures && rc.openUntil.IsZero() {
			rc.pause = min(max(2*rc.pause, breakerPause), breakerPauseMax)
			rc.openUntil = now.Add(rc.pause)
		}
	case healthUnknown:
	}
	r.release(p.name, rc)
}
