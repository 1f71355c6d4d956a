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
func (l *DepartureLog) RequestSent(queue int) (answered int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := &l.queues[queue]
	q.Sent = append(q.Sent, time.Now().UnixNano())
	return len(q.Answered)
}

// RequestAnswered notes that it was, and returns how many had been sent by then.
func (l *DepartureLog) RequestAnswered(queue int) (sent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := &l.queues[queue]
	q.Answered = append(q.Answered, time.Now().UnixNano())
	return len(q.Sent)
}

// Record notes a change that is nobody's answer: true from this moment on.
func (l *DepartureLog) Record(queue int, at time.Time) (departed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := &l.queues[queue]
	q.Sent = append(q.Sent, at.UnixNano())
	q.Answered = append(q.Answered, at.UnixNano())
	return len(q.Sent)
}

// Departed counts what a queue has lost for sure and perhaps.
func (l *DepartureLog) Departed(queue int) (answered, sent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queues[queue].Answered), len(l.queues[queue].Sent)
}

// All returns the times of every queue.
func (l *DepartureLog) All() []DepartureTimes {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.queues)
}

// AddConnection notes a connection to be opened.
func (l *DepartureLog) AddConnection(o ConnectionSpec) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connections = append(l.connections, o)
}

// Next is what the workers do not know yet, and the connections they shall open.
func (l *DepartureLog) Next() (Truth, []ConnectionSpec) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := Truth{Until: time.Now().UnixNano(), Queues: make([]DepartureTimes, len(l.queues))}
	for i, q := range l.queues {
		t.Queues[i] = DepartureTimes{Sent: q.Sent[len(l.taken[i].Sent):], Answered: q.Answered[len(l.taken[i].Answered):]}
		l.taken[i] = q
	}
	links := l.connections
	l.connections = nil
	return t, links
}
