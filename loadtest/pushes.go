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

// PushesOptions are the options of Pushes.
type PushesOptions struct {
	Nodes []string
	// Key is an account API key. The scenario creates an organization with it.
	Key string
	// Code is the servers' fixed one-time code. Only signed-in patients have devices.
	Code string
	// Patients is the number of waiting patients, each with a phone.
	Patients int
	// Moves is the number of patients called, Rate the number called in a second.
	Moves int
	Rate  float64
	// Listen is the address of the servers' NOWSERVING_FCM_ENDPOINT.
	Listen string
	// Delay is the time that FCM takes to answer. Google takes some tens of milliseconds.
	Delay time.Duration
	// Bound is the time after the last move within which every phone must show its position.
	Bound    time.Duration
	Progress func(report.Progress)
}

func (opts *PushesOptions) check() error {
	switch {
	case opts.Key == "":
		return errors.New("an account API key is required")
	case opts.Code == "":
		return errors.New("the servers' fixed one-time code is required: only signed-in patients have devices")
	case opts.Patients < 2:
		return errors.New("at least two patients are required")
	case opts.Moves < 1 || opts.Moves >= opts.Patients:
		return fmt.Errorf("%d moves: want at least 1, and fewer than the %d patients", opts.Moves, opts.Patients)
	case opts.Rate <= 0:
		return errors.New("rate must be more than zero")
	case opts.Bound <= 0:
		return errors.New("bound must be more than zero")
	}
	return nil
}

// Pushes lets patients with phones wait while a queue moves. It receives the servers' pushes
// in place of Google's FCM, and measures and checks them.
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
	serving.Go(func() {
		server.Serve(listener) //nolint:errcheck // ends when the server is closed
	})
	defer func() {
		server.Close() //nolint:errcheck // all pushes have been counted
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
	queue       []*pushPhone // in queue order
	started     time.Time    // time of the first move
	lastMove    time.Time    // time of the response to the last move
	calls       atomic.Int64 // requests to FCM
	redelivered atomic.Int64

	mu            sync.Mutex
	phones        map[string]*pushPhone // by token
	positionTimes []time.Time           // arrival times of position pushes
}

// pushPhone is a patient's phone and what it has received.
type pushPhone struct {
	token   string
	api     *client.API
	booking string
	rank    int // position in the join response

	// Guarded by the run's mu.
	position  int // last position received
	pushes    int // position pushes received
	assigned  int
	ids       map[string]bool
	correctAt time.Time // when the position became the final one
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
	for i, phone := range p.queue { // one after another, so that the order is known
		b, err := phone.api.JoinByPhone(ctx, p.typeID)
		if err != nil {
			return err
		}
		if b.QueuePosition == nil || *b.QueuePosition != i+1 {
			return fmt.Errorf("the join response of number %d has another position", i+1)
		}
		p.mu.Lock()
		phone.booking, phone.rank, phone.position = b.ID, i+1, i+1
		p.mu.Unlock()
		done.Add(1)
	}
	return nil
}

// signInAll signs every patient in and registers a device.
func (p *pushRun) signInAll(ctx context.Context, done *atomic.Int64) error {
	return concurrently(ctx, len(p.queue), func(ctx context.Context, i int) (err error) {
		if p.queue[i], err = p.newPhone(ctx, i); err == nil {
			done.Add(1)
		}
		return err
	})
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

// fcmMessage has the used fields of FCM v1's messages:send. FCM's data holds strings only, so
// other types fail to decode.
type fcmMessage struct {
	Message struct {
		Token string            `json:"token"`
		Data  map[string]string `json:"data"`
	} `json:"message"`
}

// receive answers like FCM v1: projects/{project}/messages:send.
func (p *pushRun) receive(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	n := p.calls.Add(1)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxReceived))
	if err != nil {
		return // the connection was lost; the server retries
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
	fmt.Fprintf(w, `{"name":"projects/load/messages/%d"}`, n) //nolint:errcheck // the server retries after a lost connection
}

// record checks one push.
func (p *pushRun) record(m fcmMessage, arrived time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	phone, data := p.phones[m.Message.Token], m.Message.Data
	if phone == nil {
		return // from an earlier run
	}
	if data["via"] != "scheduling-system" || data["bookingId"] != phone.booking || data["notificationId"] == "" {
		p.tally.AddFault(check.Malformed, phone.booking, "a push with a wrong booking, via or notificationId: %v", data)
		return
	}
	p.tally.Checked.Add(1)
	if phone.ids[data["notificationId"]] {
		if data["redelivery"] != "true" {
			p.tally.AddFault(check.Duplicate, phone.booking, "%s arrived twice without redelivery", data["type"])
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
			p.tally.AddFault(check.Duplicate, phone.booking, "MY_BOOKING_ASSIGNED arrived again with another ID")
		}
		if phone.rank > p.opts.Moves {
			p.tally.AddFault(check.WrongNews, phone.booking, "MY_BOOKING_ASSIGNED for number %d of %d", phone.rank, len(p.queue))
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
		p.tally.AddFault(check.WrongEstimate, phone.booking, "position %d, %q minutes", position, data["estimatedWaitMinutes"])
	}
	if position < phone.rank-p.opts.Moves || position > phone.rank || position < 1 {
		p.tally.AddFault(check.WrongPosition, phone.booking, "position %d of number %d", position, phone.rank)
	}
	if position >= phone.position {
		p.tally.AddFault(check.OutOfOrder, phone.booking, "position %d after position %d", position, phone.position)
	}
	phone.position = position
	if position == phone.rank-p.opts.Moves {
		phone.correctAt = arrived
	}
}

// play calls the patients at the rate.
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
			p.tally.AddFault(check.OutOfOrder, b.ID, "called instead of number %d", i+1)
		}
		done.Add(1) // the visit does not end, because an ended visit needs no push of its call
	}
	return nil
}

// await waits until every phone shows its position, or for Bound.
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
			p.tally.AddFault(check.Missed, phone.booking, "shows position %d, truth is %d", phone.position, phone.rank-p.opts.Moves)
		case phone.rank <= p.opts.Moves && phone.assigned == 0:
			p.tally.AddFault(check.Missed, phone.booking, "received no call")
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
		report.Figure{Name: "pushes a second in a sweep", Value: sweep, Unit: "1/s", Headline: true, Note: "the last sweep, from its first push to its last"},
		report.Figure{Name: "most position pushes one phone received", Value: float64(most), Headline: true, AtMost: max(1, math.Ceil(lasted)), Note: "one a second"},
		report.Figure{Name: "phones that show the correct position", Value: float64(len(last)), Headline: true, AtLeast: float64(p.opts.Patients - p.opts.Moves)},
		report.Count("position pushes", int64(total), fmt.Sprintf("%d positions changed", p.opts.Moves*(p.opts.Patients-p.opts.Moves)+p.opts.Moves*(p.opts.Moves-1)/2)),
		report.Figure{Name: "position pushes in the busiest second", Value: float64(busiest(p.positionTimes)), Unit: "1/s"},
		report.Count("requests to FCM", p.calls.Load(), ""),
		report.Count("redelivered", p.redelivered.Load(), "marked as redelivery"),
		report.Figure{Name: "CPU of the servers per push", Value: 1000 * cpu / float64(max(p.calls.Load(), 1)), Unit: "ms", Note: "includes the moves"},
		report.Figure{Name: "longest delay against the schedule", Value: report.Milliseconds(lag), Unit: "ms"},
	)
	r.AddCurve("positions", "last move → correct position", &age)
	p.api.Requests.AddTo(r)
	faults := p.tally.Faults()
	faults.FailedRequests = p.api.Requests.Failed.Load()
	r.Faults, r.Problems = &faults, append(p.tally.Problems(), r.Problems...)
	r.Conclude()
}

// busiest returns the largest number of times within one second.
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
