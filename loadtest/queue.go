package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

const (
	// visitMinutes is the duration of the type of every queue.
	visitMinutes = 10
	// joinsAtOnce is how many patients join side by side.
	joinsAtOnce = 16
	// maxRooms caps the resources of a queue; more doctors share them. Every
	// patient waits for every resource, so many of them are work of their own.
	maxRooms = 4
	// openingLimit bounds the time until all clients are connected.
	openingLimit = 2 * time.Minute
)

// QueueOptions says what traffic to play against which servers.
type QueueOptions struct {
	Traffic
	Nodes []string
	// Key is an account API key: it makes an organization of its own.
	Key string
	// Refill lets another patient join for each one served, so that the queues
	// keep their length.
	Refill bool
}

// Queue lets many patients wait, each with its own live position, serves the
// heads and measures how fast, how well and at what cost everybody is told.
func Queue(ctx context.Context, o QueueOptions) (*report.Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	room, err := openRoom(o.Nodes, o.Key, o.Traffic)
	if err != nil {
		return nil, err
	}
	defer room.close()
	room.refill = o.Refill
	if err := room.setUp(ctx); err != nil {
		return nil, fmt.Errorf("set up the queues: %w", err)
	}
	r, err := room.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer r.crew.dismiss()
	return r.run(ctx, "queue", room.api.Requests)
}

// waitingRoom is queues of patients on running servers.
type waitingRoom struct {
	traffic Traffic
	api     *client.API
	tally   *check.Tally
	ledger  *check.DepartureLog
	refill  bool

	types []string
	desks [][]doctorsDesk // of each queue
	queue []queueState
	links atomic.Int64 // so far

	mu        sync.Mutex
	patients  []*joiner
	byBooking map[string]*joiner
}

// queueState is what this side knows of a queue.
type queueState struct {
	joining sync.Mutex   // joins after the beginning come one after another, so their ranks are known
	joined  int          // guarded by joining
	left    atomic.Int64 // waiting and not yet asked for
}

// doctorsDesk is where one doctor of a queue works.
type doctorsDesk struct {
	resource string
	with     *joiner
}

// joiner is one patient as it joined.
type joiner struct {
	seat
	booking, token string
	sent, answered int64
}

func openRoom(addresses []string, key string, t Traffic) (*waitingRoom, error) {
	if key == "" {
		return nil, errors.New("an account API key is needed")
	}
	nodes, err := client.ParseNodes(addresses)
	if err != nil {
		return nil, err
	}
	return &waitingRoom{
		traffic: t, api: client.NewAPI(nodes, key, client.NewRequestStats()), tally: check.NewTally(), ledger: check.NewDepartureLog(t.Queues),
		queue: make([]queueState, t.Queues), desks: make([][]doctorsDesk, t.Queues), byBooking: map[string]*joiner{},
	}, nil
}

func (w *waitingRoom) close() { w.api.Close() }

// setUp makes an organization with a type and some resources for each queue, and
// lets the patients join.
func (w *waitingRoom) setUp(ctx context.Context) error {
	tenant, err := w.api.CreateOrganization(ctx, fmt.Sprintf("Load of %d patients", w.traffic.Patients))
	if err != nil {
		return err
	}
	w.api.Tenant = tenant
	for q := range w.traffic.Queues {
		kind, err := w.api.CreateType(ctx, fmt.Sprintf("Queue %d", q+1), visitMinutes)
		if err != nil {
			return err
		}
		w.types = append(w.types, kind.ID)
		for i := range min(w.traffic.Doctors, maxRooms) {
			id, err := w.api.CreateResource(ctx, fmt.Sprintf("Queue %d, room %d", q+1, i+1), kind.ID)
			if err != nil {
				return err
			}
			for d := i; d < w.traffic.Doctors; d += maxRooms {
				w.desks[q] = append(w.desks[q], doctorsDesk{resource: id})
			}
		}
		w.queue[q].joined = w.traffic.waiting(q)
		w.queue[q].left.Store(int64(w.traffic.waiting(q)))
	}
	return w.joinAll(ctx)
}

func (w *waitingRoom) joinAll(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	seats := w.traffic.seats()
	w.patients = make([]*joiner, len(seats))
	w.links.Store(int64(w.traffic.links()))
	var next, done atomic.Int64
	stop := report.ShowProgress(w.traffic.Progress, func() report.Progress {
		return report.Progress{Done: done.Load(), Total: int64(len(seats)), What: "patients joined"}
	})
	defer stop()
	var wg sync.WaitGroup
	for range joinsAtOnce {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(seats)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				p := &joiner{seat: seats[i], sent: time.Now().UnixNano()}
				p.rank = 0 // the first snapshot tells
				b, err := w.api.Join(ctx, w.types[p.queue])
				if err != nil {
					cancel(err)
					return
				}
				p.answered = time.Now().UnixNano()
				p.booking, p.token = b.ID, b.TicketToken
				w.patients[i] = p
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, p := range w.patients {
		w.byBooking[p.booking] = p
	}
	return nil
}

// linkOrders asks for the connections of the patients.
func (w *waitingRoom) linkOrders() []check.ConnectionSpec {
	list := make([]check.ConnectionSpec, w.traffic.links())
	for i, p := range w.patients {
		l := &list[p.link]
		l.Connection, l.Token = p.link, w.tokenOf(p)
		l.Channels = append(l.Channels, w.channelOrder(i, p))
	}
	return list
}

// tokenOf is what a patient's phone connects with. A phone that watches several
// has the account's key: no ticket opens more than one channel.
func (w *waitingRoom) tokenOf(p *joiner) string {
	if w.traffic.Watch > 1 {
		return w.api.Key
	}
	return p.token
}

func (w *waitingRoom) channelOrder(i int, p *joiner) check.ChannelSpec {
	return check.ChannelSpec{Patient: i, Booking: p.booking, Channel: "booking:" + p.booking, Queue: p.queue, Rank: p.rank}
}

// connect hires a crew, connects everybody and checks that the places shown are
// ones that the joins may have led to.
func (w *waitingRoom) connect(ctx context.Context) (*rush, error) {
	r := &rush{traffic: w.traffic, ledger: w.ledger, tally: w.tally, serve: w.serve, after: w.after, usage: w.api.Usage}
	kind, err := client.ParseProtocol(w.traffic.Protocol)
	if err != nil {
		return nil, err
	}
	r.crew, err = hireCrew(ctx, w.traffic, check.Options{
		Nodes: w.api.Nodes, Protocol: kind, Bound: w.traffic.Bound, Minutes: visitMinutes, Snapshots: true, Calls: true,
	})
	if err != nil {
		return nil, err
	}
	err = r.openAll(ctx, w.linkOrders())
	if err == nil {
		err = w.seatAll(r.now().FirstPositions)
	}
	if err != nil {
		r.crew.dismiss()
		return nil, err
	}
	return r, nil
}

// openAll opens connections and waits until they stand.
func (r *rush) openAll(ctx context.Context, links []check.ConnectionSpec) error {
	stop := report.ShowProgress(r.traffic.Progress, func() report.Progress {
		return report.Progress{Done: r.now().Connected, Total: int64(len(links)), What: "clients connected"}
	})
	defer stop()
	for chunk := range slices.Chunk(links, 1000) {
		if err := r.crew.open(chunk); err != nil {
			return err
		}
		if err := r.tell(); err != nil {
			return err
		}
	}
	return r.await(ctx, len(links), openingLimit)
}

// seatAll takes over the places that the first snapshots showed. Nobody has been
// called yet, so in each queue they are the numbers from 1, each once, and
// nobody stands before somebody whose join was answered before its own was sent.
func (w *waitingRoom) seatAll(places []check.FirstPosition) error {
	for _, seen := range places {
		w.patients[seen.Patient].rank = seen.Position
	}
	for q := range w.traffic.Queues {
		var line []*joiner
		for _, p := range w.patients {
			if p.queue == q {
				line = append(line, p)
			}
		}
		slices.SortFunc(line, func(a, b *joiner) int { return cmp.Compare(a.rank, b.rank) })
		lastSent := int64(0)
		for i, p := range line {
			if p.rank != i+1 {
				return fmt.Errorf("before anybody was called, the places in queue %d are not the numbers from 1 to %d: no %d", q+1, len(line), i+1)
			}
			if p.answered < lastSent {
				return fmt.Errorf("booking %s stands at place %d, behind one that joined after it", p.booking, p.rank)
			}
			lastSent = max(lastSent, p.sent)
		}
	}
	return nil
}

// serve calls the head of a queue.
func (w *waitingRoom) serve(ctx context.Context, queue, doctor int) error {
	q := &w.queue[queue]
	if q.left.Add(-1) < 0 {
		q.left.Add(1)
		return errEmpty
	}
	before := w.ledger.RequestSent(queue)
	d := &w.desks[queue][doctor]
	b, err := w.api.CallNext(ctx, d.resource)
	if err != nil {
		return err
	}
	sent := w.ledger.RequestAnswered(queue)
	w.mu.Lock()
	d.with = w.byBooking[b.ID]
	w.mu.Unlock()
	// All before the head had been called; all that were called had been asked for.
	switch {
	case d.with == nil:
		w.tally.AddFault(check.WrongNews, b.ID, "a doctor was given somebody unknown")
	case d.with.rank <= before || d.with.rank > sent:
		w.tally.AddFault(check.OutOfOrder, b.ID, "a doctor was given number %d, when %d to %d had been called before", d.with.rank, before, sent-1)
	}
	return nil
}

// after ends the visit and lets another patient join.
func (w *waitingRoom) after(ctx context.Context, queue, doctor int) error {
	d := &w.desks[queue][doctor]
	if d.with == nil {
		return nil
	}
	p := d.with
	d.with = nil
	if err := w.api.End(ctx, p.booking); err != nil {
		return err
	}
	if !w.refill {
		return nil
	}
	q := &w.queue[queue]
	q.joining.Lock()
	defer q.joining.Unlock()
	answered, _ := w.ledger.Departed(queue)
	b, err := w.api.Join(ctx, w.types[queue])
	if err != nil {
		return err
	}
	_, sent := w.ledger.Departed(queue)
	q.joined++
	n := &joiner{seat: seat{queue: queue, rank: q.joined, link: p.link}, booking: b.ID, token: b.TicketToken}
	if b.QueuePosition == nil || n.rank-*b.QueuePosition < answered || n.rank-*b.QueuePosition > sent {
		w.tally.AddFault(check.WrongPosition, b.ID, "a join was answered with another position than %d to %d", n.rank-sent, n.rank-answered)
	}
	if w.traffic.Watch == 1 {
		n.link = int(w.links.Add(1)) - 1
	}
	w.mu.Lock()
	w.byBooking[b.ID] = n
	w.patients = append(w.patients, n)
	i := len(w.patients) - 1
	w.mu.Unlock()
	w.ledger.AddConnection(check.ConnectionSpec{Connection: n.link, Token: w.tokenOf(n), Channels: []check.ChannelSpec{w.channelOrder(i, n)}})
	q.left.Add(1)
	return nil
}

// joined lists addresses for people.
func joined(nodes []string) string { return strings.Join(nodes, " ") }
