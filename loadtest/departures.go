package loadtest

import (
	"slices"
	"sync"
	"time"
)

// ledger is the truth as it happens: when changes were sent and answered.
type ledger struct {
	mu     sync.Mutex
	queues []departures
	told   []departures // how much of it the workers know: slices of the same
	links  []linkOrder  // of patients that came since the workers were told
}

func newLedger(queues int) *ledger {
	return &ledger{queues: make([]departures, queues), told: make([]departures, queues)}
}

// sent notes that a head is about to be served, and returns how many had been
// answered by then.
func (l *ledger) sent(queue int) (answered int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := &l.queues[queue]
	q.Sent = append(q.Sent, time.Now().UnixNano())
	return len(q.Answered)
}

// answered notes that it was, and returns how many had been sent by then.
func (l *ledger) answered(queue int) (sent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := &l.queues[queue]
	q.Answered = append(q.Answered, time.Now().UnixNano())
	return len(q.Sent)
}

// happened notes a change that is nobody's answer: true from this moment on.
func (l *ledger) happened(queue int, at time.Time) (departed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := &l.queues[queue]
	q.Sent = append(q.Sent, at.UnixNano())
	q.Answered = append(q.Answered, at.UnixNano())
	return len(q.Sent)
}

// departed counts what a queue has lost for sure and perhaps.
func (l *ledger) departed(queue int) (answered, sent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queues[queue].Answered), len(l.queues[queue].Sent)
}

// all returns the times of every queue.
func (l *ledger) all() []departures {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.queues)
}

// came notes a connection to be opened.
func (l *ledger) came(o linkOrder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links = append(l.links, o)
}

// news is what the workers do not know yet, and the connections they shall open.
func (l *ledger) news() (truth, []linkOrder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := truth{Until: time.Now().UnixNano(), Queues: make([]departures, len(l.queues))}
	for i, q := range l.queues {
		t.Queues[i] = departures{Sent: q.Sent[len(l.told[i].Sent):], Answered: q.Answered[len(l.told[i].Answered):]}
		l.told[i] = q
	}
	links := l.links
	l.links = nil
	return t, links
}
