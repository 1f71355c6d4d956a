package check

import (
	"slices"
	"sync"
	"time"
)

// DepartureLog is the truth as it happens: when changes were sent and answered.
type DepartureLog struct {
	mu          sync.Mutex
	queues      []DepartureTimes
	taken       []DepartureTimes // how much of it the workers know: slices of the same
	connections []ConnectionSpec // of patients that came since the workers were told
}

func NewDepartureLog(queues int) *DepartureLog {
	return &DepartureLog{queues: make([]DepartureTimes, queues), taken: make([]DepartureTimes, queues)}
}

// RequestSent notes that a head is about to be served, and returns how many had been
// answered by then.
func (d *DepartureLog) RequestSent(queue int) (answered int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := &d.queues[queue]
	q.Sent = append(q.Sent, time.Now().UnixNano())
	return len(q.Answered)
}

// RequestAnswered notes that it was, and returns how many had been sent by then.
func (d *DepartureLog) RequestAnswered(queue int) (sent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := &d.queues[queue]
	q.Answered = append(q.Answered, time.Now().UnixNano())
	return len(q.Sent)
}

// Record notes a change that is nobody's answer: true from this moment on.
func (d *DepartureLog) Record(queue int, at time.Time) (departed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := &d.queues[queue]
	q.Sent = append(q.Sent, at.UnixNano())
	q.Answered = append(q.Answered, at.UnixNano())
	return len(q.Sent)
}

// Departed counts what a queue has lost for sure and perhaps.
func (d *DepartureLog) Departed(queue int) (answered, sent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queues[queue].Answered), len(d.queues[queue].Sent)
}

// All returns the times of every queue.
func (d *DepartureLog) All() []DepartureTimes {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.queues)
}

// AddConnection notes a connection to be opened.
func (d *DepartureLog) AddConnection(spec ConnectionSpec) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.connections = append(d.connections, spec)
}

// Next is what the workers do not know yet, and the connections they shall open.
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
