package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

// PushesOptions says how long a queue of phones is and how fast it moves.
type PushesOptions struct {
	Nodes []string
	// Key is an account API key: it makes an organization of its own.
	Key string
	// Code is the servers' fixed one-time code: phones belong to people who have
	// signed in.
	Code string
	// Patients is how many wait, each with a phone.
	Patients int
	// Moves is how many heads are served, and Rate how many of them a second.
	Moves int
	Rate  float64
	// Listen is where the servers expect FCM, the address of their
	// NOWSERVING_FCM_ENDPOINT.
	Listen string
	// Delay is how long FCM takes to answer a message; Google takes some tens of
	// milliseconds.
	Delay time.Duration
	// Bound is how long after the last move everybody must have been told.
	Bound    time.Duration
	Progress func(report.Progress)
}

func (opts *PushesOptions) check() error {
	switch {
	case opts.Key == "":
		return errors.New("an account API key is needed")
	case opts.Code == "":
		return errors.New("the servers' fixed one-time code is needed: phones belong to people who have signed in")
	case opts.Patients < 2:
		return errors.New("at least two patients are needed")
	case opts.Moves < 1 || opts.Moves >= opts.Patients:
		return fmt.Errorf("%d moves: want at least 1, and fewer than the %d patients", opts.Moves, opts.Patients)
	case opts.Rate <= 0:
		return errors.New("the rate is a number of moves a second, more than 0")
	case opts.Bound <= 0:
		return errors.New("the bound must be more than zero")
	}
	return nil
}

// Pushes lets patients with phones wait while the heads of their queue are
// served, receives what the servers send to the phones in the place of Google's
// FCM, and checks and measures it.
func Pushes(ctx context.Context, opts PushesOptions) (*report.Report, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	nodes, err := client.ParseNodes(opts.Nodes)
	if err != nil {
		return nil, err
	}
	p := &pushRun{opts: opts, api: client.NewAPI(nodes, opts.Key, client.NewRequestStats()), tally: check.NewTally(), phones: map[string]*pushPhone{}}
	defer p.api.Close()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for pushes: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: receiveTimeout, Handler: http.HandlerFunc(p.receive)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // ends when it is closed
	defer func() {
		server.Close() //nolint:errcheck // nothing is expected of it any more
		serving.Wait()
	}()
	if err := p.setUp(ctx); err != nil {
		return nil, fmt.Errorf("set up the queue: %w", err)
	}
	before, err := p.api.Usage(ctx)
	if err != nil {
		return nil, err
	}
	result := report.New("pushes", time.Now())
	err = p.play(ctx)
	if err == nil {
		err = p.await(ctx)
	}
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	result.Interrupted, result.Took = ctx.Err() != nil, time.Since(p.started).Seconds()
	after, err := p.api.Usage(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	p.report(result, after.CPU-before.CPU)
	return result, nil
}

// pushRun is one run of Pushes.
type pushRun struct {
	opts        PushesOptions
	api         *client.API
	tally       *check.Tally
	typeID      string
	resourceID  string
	queue       []*pushPhone // in the order of the queue
	started     time.Time    // the first move
	lastMove    time.Time    // the last move was answered
	calls       atomic.Int64 // requests to FCM
	redelivered atomic.Int64

	mu            sync.Mutex
	phones        map[string]*pushPhone // by token
	positionTimes []time.Time           // of pushes of places
}

// pushPhone is a patient's phone and what it has been told.
type pushPhone struct {
	token   string
	api     *client.API
	booking string
	rank    int // the place the join was answered with

	// guarded by the run's mu
	position  int // the last place told
	pushes    int // of places
	assigned  int
	ids       map[string]bool
	correctAt time.Time // when the last place became the right one
}

func (p *pushRun) setUp(ctx context.Context) error {
	tenant, err := p.api.CreateOrganization(ctx, "Load of pushes")
	if err != nil {
		return err
	}
	p.api.Tenant = tenant
	kind, err := p.api.CreateType(ctx, "Visit", visitMinutes)
	if err != nil {
		return err
	}
	p.typeID = kind.ID
	if p.resourceID, err = p.api.CreateResource(ctx, "Room", kind.ID); err != nil {
		return err
	}
	p.queue = make([]*pushPhone, p.opts.Patients)
	var done atomic.Int64
	stop := report.ShowProgress(p.opts.Progress, func() report.Progress {
		return report.Progress{Done: done.Load(), Total: int64(p.opts.Patients), What: "phones"}
	})
	defer stop()
	if err := p.signInAll(ctx, &done); err != nil {
		return err
	}
	done.Store(0)
	for i, phone := range p.queue { // one after another, so that their order is known
		b, err := phone.api.JoinByPhone(ctx, p.typeID)
		if err != nil {
			return err
		}
		if b.QueuePosition == nil || *b.QueuePosition != i+1 {
			return fmt.Errorf("number %d in an empty queue was told another place", i+1)
		}
		p.mu.Lock()
		phone.booking, phone.rank, phone.position = b.ID, i+1, i+1
		p.mu.Unlock()
		done.Add(1)
	}
	return nil
}

// signInAll gives every patient a session and a device.
func (p *pushRun) signInAll(parent context.Context, done *atomic.Int64) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range joinsAtOnce {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(p.queue)); i = next.Add(1) - 1 {
				phone, err := p.newPhone(ctx, int(i))
				if err != nil {
					cancel(err)
					return
				}
				p.queue[i] = phone
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (p *pushRun) newPhone(ctx context.Context, i int) (*pushPhone, error) {
	session, err := p.api.SignIn(ctx, fmt.Sprintf("+9665%08d", 10_000_000+i), p.opts.Code)
	if err != nil {
		return nil, err
	}
	phone := &pushPhone{token: fmt.Sprintf("load-%s-%d", p.api.Tenant, i), api: session, ids: map[string]bool{}}
	body := map[string]any{"token": phone.token, "platform": []string{"android", "ios", "web"}[i%3], "lang": []string{"en", "ar"}[i%2]}
	if err := session.Call(ctx, "register a device", http.MethodPost, "/devices", body, nil, false); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phones[phone.token] = phone
	return phone, nil
}

// fcmMessage is the part of FCM v1's messages:send that is looked at. Its data
// holds texts only, so anything else is refused when it is read.
type fcmMessage struct {
	Message struct {
		Token string            `json:"token"`
		Data  map[string]string `json:"data"`
	} `json:"message"`
}

// receive answers as FCM v1 does: projects/{project}/messages:send.
func (p *pushRun) receive(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	n := p.calls.Add(1)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxReceived))
	if err != nil {
		return // the connection broke: the server will try again
	}
	if err := client.Pause(r.Context(), p.opts.Delay); err != nil {
		return
	}
	var m fcmMessage
	if err := json.Unmarshal(body, &m); err != nil || r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/messages:send") {
		p.tally.AddFault(check.Malformed, "", "%s %s: %v", r.Method, r.URL.Path, err)
		http.Error(w, `{"error":{"status":"INVALID_ARGUMENT"}}`, http.StatusBadRequest)
		return
	}
	p.record(m, arrived)
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"name":"projects/load/messages/%d"}`, n) // who has gone will ask again
}

// record checks one push.
func (p *pushRun) record(m fcmMessage, arrived time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	phone, data := p.phones[m.Message.Token], m.Message.Data
	if phone == nil {
		return // of a run before this one
	}
	if data["via"] != "scheduling-system" || data["bookingId"] != phone.booking || data["notificationId"] == "" {
		p.tally.AddFault(check.Malformed, phone.booking, "a push with other than its booking, via and notificationId: %v", data)
		return
	}
	p.tally.Checked.Add(1)
	if phone.ids[data["notificationId"]] {
		if data["redelivery"] != "true" {
			p.tally.AddFault(check.Duplicate, phone.booking, "%s came twice and does not say so", data["type"])
		}
		p.redelivered.Add(1)
		return
	}
	phone.ids[data["notificationId"]] = true
	switch data["type"] {
	case "QUEUE_POSITION_UPDATED":
		p.recordPosition(phone, data, arrived)
	case "MY_BOOKING_ASSIGNED":
		phone.assigned++
		if phone.assigned > 1 {
			p.tally.AddFault(check.Duplicate, phone.booking, "MY_BOOKING_ASSIGNED came again under another id")
		}
		if phone.rank > p.opts.Moves {
			p.tally.AddFault(check.WrongNews, phone.booking, "MY_BOOKING_ASSIGNED, and it is number %d of %d that wait", phone.rank, len(p.queue))
		}
	default:
		p.tally.AddFault(check.WrongNews, phone.booking, "%s, which did not happen", data["type"])
	}
}

func (p *pushRun) recordPosition(phone *pushPhone, data map[string]string, arrived time.Time) {
	position, err := strconv.Atoi(data["queuePosition"])
	if err != nil {
		p.tally.AddFault(check.Malformed, phone.booking, "queuePosition is %q", data["queuePosition"])
		return
	}
	phone.pushes++
	p.positionTimes = append(p.positionTimes, arrived)
	if data["estimatedWaitMinutes"] != strconv.Itoa(position*visitMinutes) {
		p.tally.AddFault(check.WrongEstimate, phone.booking, "place %d, %q minutes", position, data["estimatedWaitMinutes"])
	}
	if position < phone.rank-p.opts.Moves || position > phone.rank || position < 1 {
		p.tally.AddFault(check.WrongPosition, phone.booking, "place %d, and it was number %d", position, phone.rank)
	}
	if position >= phone.position {
		p.tally.AddFault(check.OutOfOrder, phone.booking, "place %d after place %d", position, phone.position)
	}
	phone.position = position
	if position == phone.rank-p.opts.Moves {
		phone.correctAt = arrived
	}
}

// play serves the heads, each at its moment.
func (p *pushRun) play(ctx context.Context) error {
	p.started = time.Now()
	var done atomic.Int64
	stop := report.ShowProgress(p.opts.Progress, func() report.Progress {
		return report.Progress{Done: done.Load(), Total: int64(p.opts.Moves), What: "moves", Detail: fmt.Sprintf("%d pushes", p.tally.Checked.Load())}
	})
	defer stop()
	for i := range p.opts.Moves {
		due := p.started.Add(time.Duration(float64(i) / p.opts.Rate * float64(time.Second)))
		p.tally.AddLag(time.Since(due))
		if err := client.Pause(ctx, time.Until(due)); err != nil {
			return err
		}
		b, err := p.api.CallNext(ctx, p.resourceID)
		if err != nil {
			return err
		}
		p.lastMove = time.Now()
		if b.ID != p.queue[i].booking {
			p.tally.AddFault(check.OutOfOrder, b.ID, "called when number %d was due", i+1)
		}
		done.Add(1) // the visit goes on: who is done needs no push that they were called
	}
	return nil
}

// await waits until every phone shows the truth.
func (p *pushRun) await(ctx context.Context) error {
	for !p.settled() && time.Since(p.lastMove) < p.opts.Bound {
		if err := client.Pause(ctx, report.ProgressInterval/10); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, phone := range p.queue {
		switch {
		case phone.rank > p.opts.Moves && phone.correctAt.IsZero():
			p.tally.AddFault(check.Missed, phone.booking, "shows place %d, and is number %d", phone.position, phone.rank-p.opts.Moves)
		case phone.rank <= p.opts.Moves && phone.assigned == 0:
			p.tally.AddFault(check.Missed, phone.booking, "was called and not told")
		}
	}
	return nil
}

func (p *pushRun) settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !slices.ContainsFunc(p.queue, func(phone *pushPhone) bool {
		if phone.rank > p.opts.Moves {
			return phone.correctAt.IsZero()
		}
		return phone.assigned == 0
	})
}

func (p *pushRun) report(r *report.Report, cpu float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	most, total := 0, 0
	var age report.Histogram
	var last []time.Time
	for _, phone := range p.queue {
		most, total = max(most, phone.pushes), total+phone.pushes
		if !phone.correctAt.IsZero() {
			age.Add(phone.correctAt.Sub(p.lastMove))
			last = append(last, phone.correctAt)
		}
	}
	slices.SortFunc(last, time.Time.Compare)
	sweep := 0.
	if n := len(last); n > 1 {
		sweep = float64(n-1) / last[n-1].Sub(last[0]).Seconds()
	}
	lasted := float64(p.opts.Moves-1) / p.opts.Rate
	lag, _ := p.tally.Worst()
	r.AddSetting("patients", "%d, each with a phone", p.opts.Patients)
	r.AddSetting("moves", "%d at %s", p.opts.Moves, paceText(p.opts.Rate))
	r.AddSetting("FCM", "at %s, answers after %v", p.opts.Listen, p.opts.Delay)
	r.AddSetting("nodes", "%s", joinAddresses(p.api.Nodes))
	r.AddFigures("pushes",
		report.Figure{Name: "pushes a second in a sweep", Value: sweep, Unit: "1/s", Headline: true, Note: "of the last one, from its first to its last"},
		report.Figure{Name: "places told to one phone, at most", Value: float64(most), Headline: true, AtMost: max(1, math.Ceil(lasted)), Note: "one a second"},
		report.Figure{Name: "phones that show the right place", Value: float64(len(last)), Headline: true, AtLeast: float64(p.opts.Patients - p.opts.Moves)},
		report.Count("places told", int64(total), fmt.Sprintf("%d places changed", p.opts.Moves*(p.opts.Patients-p.opts.Moves)+p.opts.Moves*(p.opts.Moves-1)/2)),
		report.Figure{Name: "places told in the busiest second", Value: float64(busiest(p.positionTimes)), Unit: "1/s"},
		report.Count("requests to FCM", p.calls.Load(), ""),
		report.Count("sent again", p.redelivered.Load(), "and saying so"),
		report.Figure{Name: "CPU of the servers per push", Value: 1000 * cpu / float64(max(p.calls.Load(), 1)), Unit: "ms", Note: "the moves included"},
		report.Figure{Name: "behind the schedule at most", Value: report.Milliseconds(lag), Unit: "ms"},
	)
	r.AddCurve("places", "last move to the right place", &age)
	p.api.Requests.AddTo(r)
	faults := p.tally.Faults()
	faults.FailedRequests = p.api.Requests.Failed.Load()
	r.Faults, r.Problems = &faults, append(p.tally.Problems(), r.Problems...)
	r.Conclude()
}

// busiest returns the largest number of moments within one second.
func busiest(times []time.Time) int {
	slices.SortFunc(times, time.Time.Compare)
	most, from := 0, 0
	for to, at := range times {
		for at.Sub(times[from]) > time.Second {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}
