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
	// visitMinutes is the duration of every booking type.
	visitMinutes = 10
	// concurrentJoins is the number of patients that join at the same time.
	concurrentJoins = 16
	// maxResources is the number of resources of a queue, at most. More doctors share them,
	// because every patient waits for every resource and each resource costs work.
	maxResources = 4
	// connectTimeout bounds the time until all clients are connected.
	connectTimeout = 2 * time.Minute
)

// QueueOptions are the options of Queue.
type QueueOptions struct {
	Traffic
	Nodes []string
	// Key is an account API key. The scenario creates an organization with it.
	Key string
	// Refill lets another patient join for each one served, so that the queues keep their
	// length.
	Refill bool
}

// Queue connects waiting patients to their live positions, calls the first patients and
// measures the rate, latency and cost of the updates.
func Queue(ctx context.Context, opts QueueOptions) (*report.Report, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	queues, err := openQueues(opts.Nodes, opts.Key, opts.Traffic)
	if err != nil {
		return nil, err
	}
	defer queues.close()
	queues.refill = opts.Refill
	if err := queues.setUp(ctx); err != nil {
		return nil, fmt.Errorf("set up the queues: %w", err)
	}
	r, err := queues.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer r.workers.stop()
	return r.run(ctx, "queue", queues.api.Requests)
}

// patientQueues are queues of patients on running servers.
type patientQueues struct {
	traffic    Traffic
	api        *client.API
	tally      *check.Tally
	departures *check.DepartureLog
	refill     bool

	types           []string
	doctors         [][]doctor // by queue
	states          []queueState
	connectionCount atomic.Int64 // connections so far

	mu        sync.Mutex
	patients  []*joinedPatient
	byBooking map[string]*joinedPatient
}

// queueState is what the scenario knows of a queue.
type queueState struct {
	joining   sync.Mutex   // serializes later joins, so that their ranks are known
	joined    int          // guarded by joining
	remaining atomic.Int64 // waiting patients that no request has called yet
}

// doctor is a doctor of a queue and the patient being served.
type doctor struct {
	resource string
	patient  *joinedPatient
}

// joinedPatient is a patient after joining.
type joinedPatient struct {
	placement
	booking, token string
	sent, answered int64
}

func openQueues(addresses []string, key string, t Traffic) (*patientQueues, error) {
	if key == "" {
		return nil, errors.New("an account API key is required")
	}
	nodes, err := client.ParseNodes(addresses)
	if err != nil {
		return nil, err
	}
	return &patientQueues{
		traffic: t, api: client.NewAPI(nodes, key, client.NewRequestStats()), tally: check.NewTally(), departures: check.NewDepartureLog(t.Queues),
		states: make([]queueState, t.Queues), doctors: make([][]doctor, t.Queues), byBooking: map[string]*joinedPatient{},
	}, nil
}

func (qs *patientQueues) close() { qs.api.Close() }

// setUp creates an organization with a booking type and resources for each queue, and lets the
// patients join.
func (qs *patientQueues) setUp(ctx context.Context) error {
	tenant, err := qs.api.CreateOrganization(ctx, fmt.Sprintf("Load of %d patients", qs.traffic.Patients))
	if err != nil {
		return err
	}
	qs.api.Tenant = tenant
	for q := range qs.traffic.Queues {
		kind, err := qs.api.CreateType(ctx, fmt.Sprintf("Queue %d", q+1), visitMinutes)
		if err != nil {
			return err
		}
		qs.types = append(qs.types, kind.ID)
		for i := range min(qs.traffic.Doctors, maxResources) {
			id, err := qs.api.CreateResource(ctx, fmt.Sprintf("Queue %d, room %d", q+1, i+1), kind.ID)
			if err != nil {
				return err
			}
			for d := i; d < qs.traffic.Doctors; d += maxResources {
				qs.doctors[q] = append(qs.doctors[q], doctor{resource: id})
			}
		}
		qs.states[q].joined = qs.traffic.patientsOf(q)
		qs.states[q].remaining.Store(int64(qs.traffic.patientsOf(q)))
	}
	return qs.joinAll(ctx)
}

func (qs *patientQueues) joinAll(ctx context.Context) error {
	placements := qs.traffic.placements()
	qs.patients = make([]*joinedPatient, len(placements))
	qs.connectionCount.Store(int64(qs.traffic.connections()))
	var done atomic.Int64
	stop := report.ShowProgress(qs.traffic.Progress, func() report.Progress {
		return report.Progress{Done: done.Load(), Total: int64(len(placements)), What: "patients joined"}
	})
	defer stop()
	err := concurrently(ctx, len(placements), func(ctx context.Context, i int) error {
		p := &joinedPatient{placement: placements[i], sent: time.Now().UnixNano()}
		p.rank = 0 // the first snapshot sets it
		b, err := qs.api.Join(ctx, qs.types[p.queue])
		if err != nil {
			return err
		}
		p.answered = time.Now().UnixNano()
		p.booking, p.token = b.ID, b.TicketToken
		qs.patients[i] = p
		done.Add(1)
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range qs.patients {
		qs.byBooking[p.booking] = p
	}
	return nil
}

// concurrently calls do with 0 to n-1 in this order, concurrentJoins at a time. After an
// error it begins no more calls, and returns the error.
func concurrently(parent context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range concurrentJoins {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := do(ctx, int(i)); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// connectionSpecs returns the connections of the patients.
func (qs *patientQueues) connectionSpecs() []check.ConnectionSpec {
	list := make([]check.ConnectionSpec, qs.traffic.connections())
	for i, p := range qs.patients {
		spec := &list[p.connection]
		spec.Connection, spec.Token = p.connection, qs.tokenOf(p)
		spec.Channels = append(spec.Channels, qs.channelSpec(i, p))
	}
	return list
}

// tokenOf returns the token of a patient's connection. A connection with several channels uses
// the account's key, because a ticket opens one channel only.
func (qs *patientQueues) tokenOf(p *joinedPatient) string {
	if qs.traffic.Watch > 1 {
		return qs.api.Key
	}
	return p.token
}

func (qs *patientQueues) channelSpec(i int, p *joinedPatient) check.ChannelSpec {
	return check.ChannelSpec{Patient: i, Booking: p.booking, Channel: "booking:" + p.booking, Queue: p.queue, Rank: p.rank}
}

// connect starts workers, connects all clients and checks that the positions in the first
// snapshots are consistent with the joins.
func (qs *patientQueues) connect(ctx context.Context) (*trafficRun, error) {
	r := &trafficRun{traffic: qs.traffic, departures: qs.departures, tally: qs.tally, serve: qs.serve, afterServe: qs.afterServe, readUsage: qs.api.Usage}
	kind, err := client.ParseProtocol(qs.traffic.Protocol)
	if err != nil {
		return nil, err
	}
	r.workers, err = startWorkers(ctx, qs.traffic, check.Options{
		Nodes: qs.api.Nodes, Protocol: kind, Bound: qs.traffic.Bound, Minutes: visitMinutes, Snapshots: true, Calls: true,
	})
	if err != nil {
		return nil, err
	}
	err = r.connectAll(ctx, qs.connectionSpecs())
	if err == nil {
		err = qs.setRanks(r.lastStatus().FirstPositions)
	}
	if err != nil {
		r.workers.stop()
		return nil, err
	}
	return r, nil
}

// connectAll opens connections and waits until they are subscribed.
func (r *trafficRun) connectAll(ctx context.Context, connections []check.ConnectionSpec) error {
	stop := report.ShowProgress(r.traffic.Progress, func() report.Progress {
		return report.Progress{Done: r.lastStatus().Connected, Total: int64(len(connections)), What: "clients connected"}
	})
	defer stop()
	for chunk := range slices.Chunk(connections, 1000) {
		if err := r.workers.open(chunk); err != nil {
			return err
		}
		if err := r.update(); err != nil {
			return err
		}
	}
	return r.awaitConnected(ctx, len(connections), connectTimeout)
}

// setRanks sets the ranks from the first snapshots. No patient has been called yet, so the
// positions in each queue are the numbers from 1, each once, and no patient is before another
// whose join was answered before its own was sent.
func (qs *patientQueues) setRanks(places []check.FirstPosition) error {
	for _, seen := range places {
		qs.patients[seen.Patient].rank = seen.Position
	}
	for q := range qs.traffic.Queues {
		var waiting []*joinedPatient
		for _, p := range qs.patients {
			if p.queue == q {
				waiting = append(waiting, p)
			}
		}
		slices.SortFunc(waiting, func(a, b *joinedPatient) int { return cmp.Compare(a.rank, b.rank) })
		lastSent := int64(0)
		for i, p := range waiting {
			if p.rank != i+1 {
				return fmt.Errorf("before the first call, the positions in queue %d are not the numbers from 1 to %d: no %d", q+1, len(waiting), i+1)
			}
			if p.answered < lastSent {
				return fmt.Errorf("booking %s is at position %d, behind one that joined after it", p.booking, p.rank)
			}
			lastSent = max(lastSent, p.sent)
		}
	}
	return nil
}

// serve calls the first patient of a queue.
func (qs *patientQueues) serve(ctx context.Context, queue, doctor int) error {
	q := &qs.states[queue]
	if q.remaining.Add(-1) < 0 {
		q.remaining.Add(1)
		return errQueueEmpty
	}
	before := qs.departures.RequestSent(queue)
	d := &qs.doctors[queue][doctor]
	b, err := qs.api.CallNext(ctx, d.resource)
	if err != nil {
		return err
	}
	sent := qs.departures.RequestAnswered(queue)
	qs.mu.Lock()
	d.patient = qs.byBooking[b.ID]
	qs.mu.Unlock()
	// Every patient before this one had been called, and every called patient had been
	// requested.
	switch {
	case d.patient == nil:
		qs.tally.AddFault(check.WrongNews, b.ID, "a call returned an unknown booking")
	case d.patient.rank <= before || d.patient.rank > sent:
		qs.tally.AddFault(check.OutOfOrder, b.ID, "a call returned number %d after %d to %d calls", d.patient.rank, before, sent-1)
	}
	return nil
}

// afterServe ends the visit and lets another patient join.
func (qs *patientQueues) afterServe(ctx context.Context, queue, doctor int) error {
	d := &qs.doctors[queue][doctor]
	if d.patient == nil {
		return nil
	}
	p := d.patient
	d.patient = nil
	if err := qs.api.End(ctx, p.booking); err != nil {
		return err
	}
	if !qs.refill {
		return nil
	}
	q := &qs.states[queue]
	q.joining.Lock()
	defer q.joining.Unlock()
	answered, _ := qs.departures.Departed(queue)
	b, err := qs.api.Join(ctx, qs.types[queue])
	if err != nil {
		return err
	}
	_, sent := qs.departures.Departed(queue)
	q.joined++
	n := &joinedPatient{placement: placement{queue: queue, rank: q.joined, connection: p.connection}, booking: b.ID, token: b.TicketToken}
	if b.QueuePosition == nil || n.rank-*b.QueuePosition < answered || n.rank-*b.QueuePosition > sent {
		qs.tally.AddFault(check.WrongPosition, b.ID, "the join response has a position outside of %d to %d", n.rank-sent, n.rank-answered)
	}
	if qs.traffic.Watch == 1 {
		n.connection = int(qs.connectionCount.Add(1)) - 1
	}
	qs.mu.Lock()
	qs.byBooking[b.ID] = n
	qs.patients = append(qs.patients, n)
	i := len(qs.patients) - 1
	qs.mu.Unlock()
	qs.departures.AddConnection(check.ConnectionSpec{Connection: n.connection, Token: qs.tokenOf(n), Channels: []check.ChannelSpec{qs.channelSpec(i, n)}})
	q.remaining.Add(1)
	return nil
}

// joinAddresses returns addresses as one text.
func joinAddresses(nodes []string) string { return strings.Join(nodes, " ") }
