package check

import (
	"slices"
	"sync"
	"time"
)

// DepartureLog records the departures of every queue: when each request was sent and answered.
// It is safe for concurrent use.
type DepartureLog struct {
	mu          sync.Mutex
	queues      []DepartureTimes
	taken       []DepartureTimes // the part that Next has returned
	connections []ConnectionSpec // connections added since Next
}

// NewDepartureLog returns a log for a number of queues.
func NewDepartureLog(queues int) *DepartureLog {
	return &DepartureLog{queues: make([]DepartureTimes, queues), taken: make([]DepartureTimes, queues)}
}

// RequestSent records that a request to call a patient is about to be sent. It returns the
// number of requests answered so far.
func (d *DepartureLog) RequestSent(queue int) (answered int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := &d.queues[queue]
	q.Sent = append(q.Sent, time.Now().UnixNano())
	return len(q.Answered)
}

// RequestAnswered records that a request was answered. It returns the number of requests sent
// so far.
func (d *DepartureLog) RequestAnswered(queue int) (sent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := &d.queues[queue]
	q.Answered = append(q.Answered, time.Now().UnixNano())
	return len(q.Sent)
}

// Record records a departure that is true from a known moment on. It returns the number of
// departures.
func (d *DepartureLog) Record(queue int, at time.Time) (departed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := &d.queues[queue]
	q.Sent = append(q.Sent, at.UnixNano())
	q.Answered = append(q.Answered, at.UnixNano())
	return len(q.Sent)
}

// Departed returns the number of requests answered and sent: the departures that are certain
// and possible.
func (d *DepartureLog) Departed(queue int) (answered, sent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queues[queue].Answered), len(d.queues[queue].Sent)
}

// All returns the departure times of every queue.
func (d *DepartureLog) All() []DepartureTimes {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.queues)
}

// AddConnection adds a connection that the workers are to open.
func (d *DepartureLog) AddConnection(spec ConnectionSpec) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.connections = append(d.connections, spec)
}

// Next returns the departures and connections added since the last call.
func (d *DepartureLog) Next() (Truth, []ConnectionSpec) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := Truth{Until: time.Now().UnixNano(), Queues: make([]DepartureTimes, len(d.queues))}
	for i, q := range d.queues {
		t.Queues[i] = DepartureTimes{Sent: q.Sent[len(d.taken[i].Sent):], Answered: q.Answered[len(d.taken[i].Answered):]}
		d.taken[i] = q
	}
	links := d.connections
	d.connections = nil
	return t, links
}
