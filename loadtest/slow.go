package loadtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

// SlowGoal is the factor by which the other clients may become slower.
const SlowGoal = 1.2

// SlowOptions are the options of Slow.
type SlowOptions struct {
	Nodes    []string
	Key      string
	Protocol string
	Clients  int
	// Stalled is the share of the clients that stop reading.
	Stalled float64
	// Rate is the number of patients called in a second. A round has two phases, each as long
	// as Phase: in the first all clients read, in the second the stalled ones do not. The
	// median of the rounds counts, because the speed of a machine varies.
	Rate     float64
	Phase    time.Duration
	Rounds   int
	Bound    time.Duration
	Progress func(report.Progress)

	goal float64 // SlowGoal, except in tests
}

// Slow lets some clients stop reading while a queue moves. It measures the effect on the other
// clients and what happens to the stalled ones.
func Slow(ctx context.Context, opts SlowOptions) (*report.Report, error) {
	stalled := int(math.Round(float64(opts.Clients) * opts.Stalled))
	switch {
	case stalled < 1 || stalled >= opts.Clients:
		return nil, fmt.Errorf("%g of %d clients is none or all of them", opts.Stalled, opts.Clients)
	case !(opts.Rate > 0) || opts.Phase <= 0 || opts.Bound < 0 || opts.Rounds < 1:
		return nil, errors.New("rate, phase, bound and rounds must be more than zero")
	}
	heads := 2 * opts.Rounds * opts.perPhase()
	queues, err := openStaticQueues(ctx, opts.Nodes, opts.Key, Traffic{Patients: heads, Protocol: opts.Protocol, Progress: opts.Progress, Bound: opts.Bound})
	if err != nil {
		return nil, err
	}
	defer queues.close()
	// The patients that are called have no clients. The others join behind them, so that the
	// same clients receive every change.
	queues.traffic.Patients = opts.Clients
	if err := queues.joinAll(ctx); err != nil {
		return nil, fmt.Errorf("let the clients join: %w", err)
	}
	s := &slow{opts: opts, group: newClientGroup(queues), heads: heads, stalled: stalled, sent: make([]atomic.Int64, heads)}
	s.latency = make([][2]report.Histogram, opts.Rounds)
	defer s.group.close()
	return s.run(ctx)
}

// perPhase returns the number of patients called in a phase.
func (opts *SlowOptions) perPhase() int {
	return max(1, int(math.Round(opts.Rate*opts.Phase.Seconds())))
}

// slow is one run. The truth is the number of patients called so far.
type slow struct {
	opts           SlowOptions
	group          *clientGroup
	heads, stalled int
	clients        []*slowClient

	sent                []atomic.Int64        // time of each call request, Unix nanoseconds
	requested, departed atomic.Int64          // calls requested and calls answered
	latency             [][2]report.Histogram // latency of reading clients, by round and phase

	mu      sync.Mutex
	reading chan struct{} // closed while the stalled clients read; guarded by mu
}

// slowClient is one client.
type slowClient struct {
	slow        *slow
	patient     *joinedPatient
	stalled     bool
	position    atomic.Int64 // last position received
	initialRank int64        // position in the first snapshot
	drops       atomic.Int64
}

func (s *slow) run(ctx context.Context) (*report.Report, error) {
	s.reading = make(chan struct{})
	close(s.reading)
	connections := make([]*client.Connection, len(s.group.queues.patients))
	every := float64(len(connections)) / float64(s.stalled)
	next := 0.0
	for i, p := range s.group.queues.patients {
		c := &slowClient{slow: s, patient: p}
		conn, err := s.group.newConnection(i, p, c)
		if err != nil {
			return nil, err
		}
		// The stalled clients are spread evenly over the queue.
		if float64(i) >= next {
			next += every
			c.stalled, conn.SmallBuffers, conn.Stalled = true, true, s.wait
		}
		connections[i], s.clients = conn, append(s.clients, c)
	}
	if err := s.group.connectAll(ctx, connections, s.opts.Progress); err != nil {
		return nil, err
	}
	places := make([]check.FirstPosition, len(s.clients))
	for i, c := range s.clients {
		places[i] = check.FirstPosition{Patient: i, Position: int(c.position.Load()) - s.heads}
	}
	if err := s.group.queues.setRanks(places); err != nil {
		s.group.fault(check.WrongPosition, "", "%v", err)
	}

	started := time.Now()
	samples := report.NewSampler(started,
		report.Measure{Chart: "deliveries", Name: "positions received", Unit: "per second", Rate: true, Read: report.Gauge(&s.group.stats.Messages)},
		report.Measure{Chart: "clients", Name: "connected", Read: report.Gauge(&s.group.stats.Connected)},
	)
	stopSamples := samples.Run()
	stopProgress := report.ShowProgress(s.opts.Progress, func() report.Progress {
		return report.Progress{
			Done: s.departed.Load(), Total: int64(s.heads), What: "patients called",
			Detail: fmt.Sprintf("%d connected, %d updates, %d wrong", s.group.stats.Connected.Load(), s.group.stats.Messages.Load(), s.group.faultCount()),
		}
	})
	o, err := s.play(ctx, samples)
	stopProgress()
	stopSamples()
	if err != nil {
		return nil, err
	}

	result := report.New("slow", started)
	result.AddSetting("clients", "%d, of which %d stop reading", s.opts.Clients, s.stalled)
	result.AddSetting("against", "%s (%s)", joinAddresses(s.group.queues.api.Nodes), s.group.queues.traffic.Protocol)
	result.AddSetting("patients called", "%g a second", s.opts.Rate)
	result.AddSetting("rounds", "%d, each %v with all clients reading and %v with some stalled", s.opts.Rounds, s.opts.Phase, s.opts.Phase)
	s.fill(result, o)
	samples.AddTo(result)
	result.Conclude()
	return result, nil
}

// slowOutcome is the outcome apart from latencies.
type slowOutcome struct {
	before, during, after client.Usage
	dropped               int64 // stalled clients that lost their connection
	kept                  int64
	readersDropped        int64 // connections lost by reading clients
}

func (s *slow) play(ctx context.Context, samples *report.Sampler) (o slowOutcome, err error) {
	queues := s.group.queues
	if o.before, err = queues.api.Usage(ctx); err != nil {
		return o, err
	}
	for round := range s.opts.Rounds {
		if err := s.serve(ctx, s.opts.perPhase()); err != nil {
			return o, err
		}
		if err := s.awaitPositions(ctx, false); err != nil {
			return o, err
		}
		if err := s.runStalledPhase(ctx, samples, round, &o); err != nil {
			return o, err
		}
	}
	if o.after, err = queues.api.Usage(ctx); err != nil {
		return o, err
	}
	for _, c := range s.clients {
		switch drops := c.drops.Load(); {
		case !c.stalled:
			o.readersDropped += drops
		case drops > 0:
			o.dropped++
		default:
			o.kept++
		}
	}
	return o, nil
}

// runStalledPhase runs the second phase of a round.
func (s *slow) runStalledPhase(ctx context.Context, samples *report.Sampler, round int, o *slowOutcome) error {
	s.mu.Lock()
	s.reading = make(chan struct{})
	s.mu.Unlock()
	samples.Mark(fmt.Sprintf("%d stop reading", s.stalled))
	err := s.serve(ctx, s.opts.perPhase())
	if err == nil && round == 0 {
		o.during, err = s.group.queues.api.Usage(ctx)
	}
	if err == nil {
		err = s.awaitPositions(ctx, false)
	}
	samples.Mark("all read again")
	s.mu.Lock()
	close(s.reading)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.awaitPositions(ctx, true); err != nil {
		return err
	}
	// A dropped client notices when it has read what was left in the socket.
	if err := client.Pause(ctx, restTime); err != nil {
		return err
	}
	return s.awaitPositions(ctx, true)
}

// wait blocks a stalled client until it may read.
func (s *slow) wait(ctx context.Context, _ net.Conn) (over bool) {
	s.mu.Lock()
	reading := s.reading
	s.mu.Unlock()
	select {
	case <-reading:
		return false
	case <-ctx.Done():
		return true
	}
}

// serve calls patients at the rate.
func (s *slow) serve(ctx context.Context, n int) error {
	queues := s.group.queues
	resource := queues.doctors[0][0].resource
	begin := time.Now()
	for i := range n {
		if err := client.Pause(ctx, time.Until(begin.Add(time.Duration(float64(i)/s.opts.Rate*float64(time.Second))))); err != nil {
			return err
		}
		head := s.requested.Load()
		s.sent[head].Store(time.Now().UnixNano())
		s.requested.Add(1)
		b, err := queues.api.CallNext(ctx, resource)
		if err != nil {
			return err
		}
		s.departed.Add(1)
		if err := queues.api.End(ctx, b.ID); err != nil {
			return err
		}
	}
	return nil
}

// awaitPositions waits until all clients show their current position; the stalled ones only if
// all is set. A client that does not is a missed update.
func (s *slow) awaitPositions(ctx context.Context, all bool) error {
	behind := func() (list []*slowClient) {
		for _, c := range s.clients {
			if (all || !c.stalled) && c.position.Load() != c.initialRank-s.departed.Load() {
				list = append(list, c)
			}
		}
		return list
	}
	err := s.group.await(ctx, s.group.queues.traffic.Bound, "all show their position", func() bool { return len(behind()) == 0 })
	if !errors.Is(err, errTimeout) {
		return err
	}
	for _, c := range behind() {
		s.group.fault(check.Missed, c.patient.booking, "kept at position %d for longer than %v, truth is %d", c.position.Load(), s.group.queues.traffic.Bound, c.initialRank-s.departed.Load())
	}
	return nil
}

// OnSnapshot implements client.Listener.
func (c *slowClient) OnSnapshot(data []byte, _, got time.Time) (done bool) {
	gone := c.slow.departed.Load()
	place, ok := c.slow.group.readSnapshot(c.patient, data)
	if !ok {
		return false
	}
	if c.initialRank == 0 {
		c.initialRank = int64(place)
	}
	c.checkPosition(int64(place), gone, got, true)
	return false
}

// OnPosition implements client.Listener.
func (c *slowClient) OnPosition(p client.PositionUpdate, at time.Time) (done bool) {
	c.slow.group.tally.Checked.Add(1)
	if p.Minutes != p.Position*visitMinutes {
		c.slow.group.fault(check.WrongEstimate, c.patient.booking, "estimatedWaitMinutes is %d with position %d", p.Minutes, p.Position)
	}
	c.checkPosition(int64(p.Position), 0, at, false)
	return false
}

// checkPosition checks a position: it is or was true and is newer than the previous one. known
// is the number of calls answered before it was sent.
func (c *slowClient) checkPosition(place, known int64, at time.Time, snapshot bool) {
	s := c.slow
	gone := c.initialRank - place // patients called, if the position is true
	last := c.position.Load()
	switch {
	case gone < 0 || gone > s.requested.Load():
		s.group.fault(check.WrongPosition, c.patient.booking, "received position %d, truth is %d", place, c.initialRank-s.departed.Load())
		return
	case last != 0 && place > last:
		s.group.fault(check.OutOfOrder, c.patient.booking, "received position %d after %d", place, last)
		return
	case last == place && !snapshot:
		s.group.fault(check.Duplicate, c.patient.booking, "received position %d again", place)
		return
	case snapshot && gone < known && c.stalled:
		// It was sent before this client read it.
	case snapshot && gone < known:
		s.group.fault(check.StaleSnapshot, c.patient.booking, "a snapshot shows position %d, truth is %d", place, c.initialRank-known)
	}
	c.position.Store(place)
	if snapshot || c.stalled || gone == 0 {
		return
	}
	// A call belongs to the phase in which it was requested.
	phase := int(gone-1) / s.opts.perPhase()
	s.latency[phase/2][phase%2].Add(at.Sub(time.Unix(0, s.sent[gone-1].Load())))
}

// OnPublication implements client.Listener.
func (c *slowClient) OnPublication(data []byte, at time.Time) (done bool) {
	var p client.Publication
	if err := json.Unmarshal(data, &p); err == nil && p.Type == "QUEUE_POSITION_UPDATED" && p.BookingID == c.patient.booking && p.QueuePosition != nil && p.EstimatedWaitMinutes != nil {
		return c.OnPosition(client.PositionUpdate{Position: *p.QueuePosition, Minutes: *p.EstimatedWaitMinutes}, at)
	}
	c.slow.group.fault(check.WrongNews, c.patient.booking, "received %.100s, truth is that only positions changed", data)
	return false
}

// OnDisconnect implements client.Listener.
func (c *slowClient) OnDisconnect(time.Time) {
	if c.slow.group.ctx.Err() == nil {
		c.drops.Add(1)
	}
}

func (s *slow) fill(result *report.Report, o slowOutcome) {
	var all [2]report.Histogram
	var ratios []float64
	note := ""
	for i := range s.latency {
		without, with := s.latency[i][0].Summary(), s.latency[i][1].Summary()
		ratios = append(ratios, with.P99/max(without.P99, 0.001))
		note += fmt.Sprintf(", %s ms against %s ms", report.Number(with.P99), report.Number(without.P99))
		all[0].Merge(&s.latency[i][0])
		all[1].Merge(&s.latency[i][1])
	}
	slices.Sort(ratios)
	result.AddFigures("reading clients",
		report.Figure{Name: "p99 with stalled clients to p99 without", Value: ratios[(len(ratios)-1)/2], Unit: "times", AtMost: cmp.Or(s.opts.goal, SlowGoal), Headline: true,
			Note: "the median of the rounds: " + strings.TrimPrefix(note, ", ")},
		report.Count("connections lost", o.readersDropped, ""),
	)
	result.AddFigures("stalled clients",
		report.Figure{Name: "dropped by the server", Value: float64(o.dropped), Headline: true, Note: "they reconnected and received their position"},
		report.Count("kept", o.kept, "the server kept the connection; they received the newest position"),
	)
	result.AddFigures("the server",
		report.Figure{Name: "resident before", Value: o.before.Resident / (1 << 20), Unit: "MB"},
		report.Figure{Name: "resident with stalled clients", Value: o.during.Resident / (1 << 20), Unit: "MB"},
		report.Figure{Name: "resident afterwards", Value: o.after.Resident / (1 << 20), Unit: "MB"},
		report.Figure{Name: "additional for each stalled client", Value: max(0, o.during.Resident-o.before.Resident) / float64(s.stalled) / 1024, Unit: "KB", Note: "upper limit; includes all other growth"},
	)
	result.AddFigures("checked against the truth",
		report.Count("positions checked", s.group.tally.Checked.Load(), ""),
		report.Count("snapshots checked", s.group.tally.Snapshots.Load(), "among the positions"),
	)
	result.AddCurve("call requested → position received", "all read", &all[0])
	result.AddCurve("call requested → position received", "some stalled", &all[1])
	s.group.queues.api.Requests.AddTo(result)
	result.Faults = s.group.faults()
	result.Problems = append(result.Problems, s.group.tally.Problems()...)
}
