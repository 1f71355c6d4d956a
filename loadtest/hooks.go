package loadtest

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	// webhooksOfOrganization is the number of webhooks that an organization may have.
	webhooksOfOrganization = 100
	// receiversOfOrganization is the number of receivers of one organization: each has a
	// webhook for both triggers.
	receiversOfOrganization = webhooksOfOrganization / 2
	// triggerJoined and triggerLeft are the triggers of a visit.
	triggerJoined = "bookingUnassigned"
	triggerLeft   = "providerCanceled"
	// receiveTimeout bounds the header of a request that the scenario receives.
	receiveTimeout = 10 * time.Second
	// maxReceived bounds the body of such a request.
	maxReceived = 1 << 20
)

// HooksOptions are the options of Hooks.
type HooksOptions struct {
	Nodes []string
	// Key is an account API key. The scenario creates organizations with it.
	Key string
	// Endpoints is the number of receivers, each at its own address. Dead is the number of
	// them that accept connections and never answer.
	Endpoints, Dead int
	// Events is the number of changes. Each is delivered to every receiver of its
	// organization.
	Events int
	// Rate is the number of events a second. 0 is as fast as the servers answer.
	Rate float64
	// Patience is the time without deliveries after which the rest counts as missed.
	Patience time.Duration
	// Host is the address at which the servers reach the receivers.
	Host     string
	Progress func(report.Progress)
}

func (opts *HooksOptions) check() error {
	switch {
	case opts.Key == "":
		return errors.New("an account API key is required")
	case opts.Endpoints < 1 || opts.Endpoints > 1000:
		return fmt.Errorf("%d endpoints: want 1 to 1000", opts.Endpoints)
	case opts.Dead < 0 || opts.Dead >= opts.Endpoints:
		return fmt.Errorf("%d of %d endpoints cannot be dead: one must answer", opts.Dead, opts.Endpoints)
	case opts.Events < 2:
		return errors.New("at least two events are needed: a patient joins and leaves")
	case opts.Patience <= 0:
		return errors.New("patience must be more than zero")
	case opts.Rate < 0:
		return errors.New("rate must not be less than zero")
	}
	return nil
}

// Hooks lets patients join and leave, receives the servers' webhooks and measures and checks
// them.
func Hooks(ctx context.Context, opts HooksOptions) (*report.Report, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	nodes, err := client.ParseNodes(opts.Nodes)
	if err != nil {
		return nil, err
	}
	h := &hookRun{
		opts: opts, api: client.NewAPI(nodes, opts.Key, client.NewRequestStats()), tally: check.NewTally(),
		ids: map[string]delivery{}, seen: map[delivery]arrival{},
	}
	defer h.api.Close()
	defer h.stop()
	if err := h.setUp(ctx); err != nil {
		return nil, fmt.Errorf("set up the webhooks: %w", err)
	}
	before, err := h.api.Usage(ctx)
	if err != nil {
		return nil, err
	}
	h.started = time.Now()
	stop := report.ShowProgress(opts.Progress, func() report.Progress {
		return report.Progress{Done: h.tally.Checked.Load(), Total: int64(h.expected()), What: "deliveries"}
	})
	err = h.play(ctx)
	made := time.Since(h.started)
	if err == nil {
		err = h.await(ctx)
	}
	stop()
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	result := report.New("hooks", h.started)
	result.Interrupted = ctx.Err() != nil
	after, err := h.api.Usage(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	h.report(result, made, after.CPU-before.CPU)
	return result, nil
}

// hookRun is one run of Hooks.
type hookRun struct {
	opts      HooksOptions
	api       *client.API
	tally     *check.Tally
	clinics   []hookClinic
	receivers []*receiver
	visits    []string // booking of each visit; the clinic is the index modulo the number of clinics
	started   time.Time
	latency   report.Histogram // commit → first attempt
	refused   atomic.Int64     // attempts at dead receivers

	mu        sync.Mutex
	ids       map[string]delivery // by webhook-id
	seen      map[delivery]arrival
	last      time.Time
	repeated  int64 // deliveries repeated with the same ID
	overtaken int64 // deliveries that arrived after a newer one of the same booking
}

// hookClinic is an organization and the number of its first receiver.
type hookClinic struct {
	api    *client.API
	typeID string
	first  int
}

// delivery identifies what a receiver must receive exactly once.
type delivery struct {
	receiver         int
	booking, trigger string
}

// arrival is the ID and sequence with which a delivery arrived.
type arrival struct {
	id       string
	sequence int64
}

// receiver is a receiver of webhooks.
type receiver struct {
	number int
	dead   bool
	secret string
	check  *standardwebhooks.Webhook
	server *http.Server
	url    string
}

func (h *hookRun) setUp(ctx context.Context) error {
	for i := range h.opts.Endpoints {
		r, err := h.listen(ctx, i)
		if err != nil {
			return err
		}
		h.receivers = append(h.receivers, r)
	}
	for first := 0; first < h.opts.Endpoints; first += receiversOfOrganization {
		tenant, err := h.api.CreateOrganization(ctx, "Load of webhooks")
		if err != nil {
			return err
		}
		c := hookClinic{api: h.api.As(h.api.Key), first: first}
		c.api.Tenant = tenant
		kind, err := c.api.CreateType(ctx, "Visit", visitMinutes)
		if err != nil {
			return err
		}
		c.typeID = kind.ID
		if _, err := c.api.CreateResource(ctx, "Room", kind.ID); err != nil {
			return err
		}
		for _, r := range h.receiversOf(c) {
			for _, trigger := range []string{triggerJoined, triggerLeft} {
				body := map[string]any{"trigger": trigger, "url": r.url, "secret": r.secret}
				if err := c.api.Call(ctx, "add a webhook", http.MethodPost, "/management/webhooks", body, nil, false); err != nil {
					return fmt.Errorf("%w (start the server with NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true)", err)
				}
			}
		}
		h.clinics = append(h.clinics, c)
	}
	h.visits = make([]string, h.opts.Events/2)
	return nil
}

func (h *hookRun) receiversOf(c hookClinic) []*receiver {
	return h.receivers[c.first:min(c.first+receiversOfOrganization, len(h.receivers))]
}

// listen starts a receiver at its own address. The last ones are dead.
func (h *hookRun) listen(ctx context.Context, number int) (*receiver, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(h.opts.Host, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for webhooks: %w", err)
	}
	key := make([]byte, 32)
	rand.Read(key)
	r := &receiver{number: number, dead: number >= h.opts.Endpoints-h.opts.Dead, secret: "whsec_" + base64.StdEncoding.EncodeToString(key), url: "http://" + listener.Addr().String() + "/hook"}
	if r.check, err = standardwebhooks.NewWebhook(r.secret); err != nil {
		return nil, err
	}
	r.server = &http.Server{ReadHeaderTimeout: receiveTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { h.receive(r, w, req) })}
	go func() {
		r.server.Serve(listener) //nolint:errcheck // stop closes the server
	}()
	return r, nil
}

func (h *hookRun) stop() {
	for _, r := range h.receivers {
		if err := r.server.Close(); err != nil {
			h.tally.AddProblem("receiver", "", "close: %v", err)
		}
	}
}

// receive handles one attempt of a server.
func (h *hookRun) receive(r *receiver, w http.ResponseWriter, req *http.Request) {
	arrived := time.Now()
	body, err := io.ReadAll(io.LimitReader(req.Body, maxReceived))
	if err != nil {
		return // the connection was lost; the server retries
	}
	if r.dead {
		h.refused.Add(1)
		<-req.Context().Done()
		return
	}
	w.WriteHeader(http.StatusNoContent)
	var payload struct {
		ID      string `json:"id"`
		Trigger string `json:"trigger"`
		Data    struct {
			Sequence int64     `json:"sequence"`
			At       time.Time `json:"at"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &payload); err != nil {
		h.tally.AddFault(check.Malformed, "", "%v", err)
		return
	}
	if err := r.check.Verify(body, req.Header); err != nil {
		h.tally.AddFault(check.Malformed, payload.ID, "%v", err)
	}
	mac := hmac.New(sha256.New, []byte(r.secret))
	mac.Write(body)
	if req.Header.Get("x-icos-signature") != hex.EncodeToString(mac.Sum(nil)) {
		h.tally.AddFault(check.Malformed, payload.ID, "x-icos-signature is wrong")
	}
	if payload.Data.Sequence <= 0 || payload.Data.At.IsZero() {
		h.tally.AddFault(check.Malformed, payload.ID, "%s has no data.sequence or data.at", payload.Trigger)
	}
	if h.record(delivery{r.number, payload.ID, payload.Trigger}, arrival{req.Header.Get(standardwebhooks.HeaderWebhookID), payload.Data.Sequence}, arrived) {
		h.latency.Add(arrived.Sub(payload.Data.At))
	}
}

// record stores a delivery and reports whether it is the first of its kind.
func (h *hookRun) record(d delivery, a arrival, arrived time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if of, known := h.ids[a.id]; known && of != d {
		h.tally.AddFault(check.Malformed, d.booking, "%s has the webhook-id of another delivery", d.trigger)
	}
	if before, known := h.seen[d]; known {
		h.repeated++
		if before.id != a.id {
			h.tally.AddFault(check.Duplicate, d.booking, "receiver %d received %s twice, with two IDs", d.receiver, d.trigger)
		}
		return false
	}
	h.ids[a.id], h.seen[d], h.last = d, a, arrived
	h.tally.Checked.Add(1)
	// The two deliveries of a booking may arrive in any order. Their sequence has the true
	// order.
	joined, hasJoined := h.seen[delivery{d.receiver, d.booking, triggerJoined}]
	left, hasLeft := h.seen[delivery{d.receiver, d.booking, triggerLeft}]
	if hasJoined && hasLeft {
		if joined.sequence >= left.sequence {
			h.tally.AddFault(check.OutOfOrder, d.booking, "the join has sequence %d, the leave %d", joined.sequence, left.sequence)
		}
		if d.trigger == triggerJoined {
			h.overtaken++
		}
	}
	return true
}

// play lets patients join and leave.
func (h *hookRun) play(ctx context.Context) error {
	return concurrently(ctx, len(h.visits), h.visit)
}

func (h *hookRun) visit(ctx context.Context, i int) error {
	if h.opts.Rate > 0 {
		due := h.started.Add(time.Duration(float64(2*i) / h.opts.Rate * float64(time.Second)))
		h.tally.AddLag(time.Since(due))
		if err := client.Pause(ctx, time.Until(due)); err != nil {
			return err
		}
	}
	c := h.clinics[i%len(h.clinics)]
	b, err := c.api.Join(ctx, c.typeID)
	if err != nil {
		return err
	}
	h.visits[i] = b.ID
	return c.api.Cancel(ctx, b.ID)
}

// await waits until everything has arrived, or nothing arrives for Patience.
func (h *hookRun) await(ctx context.Context) error {
	came, since := int64(0), time.Now()
	for came < int64(h.expected()) && time.Since(since) < h.opts.Patience {
		if err := client.Pause(ctx, report.ProgressInterval); err != nil {
			return err
		}
		if now := h.tally.Checked.Load(); now > came {
			came, since = now, time.Now()
		}
	}
	h.compare()
	return nil
}

// compare compares what the receivers got with what the patients did.
func (h *hookRun) compare() {
	h.mu.Lock()
	defer h.mu.Unlock()
	ours := map[string]bool{}
	for i, booking := range h.visits {
		ours[booking] = true
		for _, r := range h.receiversOf(h.clinics[i%len(h.clinics)]) {
			for _, trigger := range []string{triggerJoined, triggerLeft} {
				if _, received := h.seen[delivery{r.number, booking, trigger}]; !received && !r.dead {
					h.tally.AddFault(check.Missed, booking, "receiver %d did not receive %s", r.number, trigger)
				}
			}
		}
	}
	for d := range h.seen {
		if !ours[d.booking] || d.trigger != triggerJoined && d.trigger != triggerLeft {
			h.tally.AddFault(check.WrongNews, d.booking, "receiver %d received %s, which did not happen", d.receiver, d.trigger)
		}
	}
}

// expected returns the number of deliveries to the receivers that answer.
func (h *hookRun) expected() int {
	n := 0
	for i := range h.visits {
		for _, r := range h.receiversOf(h.clinics[i%len(h.clinics)]) {
			if !r.dead {
				n += 2
			}
		}
	}
	return n
}

func (h *hookRun) report(r *report.Report, made time.Duration, cpu float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, events := float64(len(h.seen)), float64(2*len(h.visits))
	r.AddSetting("receivers", "%d, %d of them dead", h.opts.Endpoints, h.opts.Dead)
	r.AddSetting("organizations", "%d", len(h.clinics))
	r.AddSetting("events", "%.0f at %s", events, paceText(h.opts.Rate))
	r.AddSetting("nodes", "%s", joinAddresses(h.api.Nodes))
	r.AddFigures("deliveries",
		report.Figure{Name: "deliveries a second", Value: n / h.last.Sub(h.started).Seconds(), Unit: "1/s", Headline: true, Note: "from the first request to the last arrival"},
		report.Figure{Name: "p50 to the first attempt", Value: report.Milliseconds(h.latency.Quantile(0.5)), Unit: "ms", Headline: true, Note: "from the time of the transaction to the arrival"},
		report.Figure{Name: "p99 to the first attempt", Value: report.Milliseconds(h.latency.Quantile(0.99)), Unit: "ms", Headline: true},
		report.Count("deliveries", int64(n), "to receivers that answer"),
		report.Count("repeated", h.repeated, "with the same ID"),
		report.Count("overtaken", h.overtaken, "arrived after a newer one of the same booking; the sequence has the order"),
		report.Count("attempts at dead receivers", h.refused.Load(), ""),
	)
	r.AddFigures("events",
		report.Figure{Name: "events a second", Value: events / made.Seconds(), Unit: "1/s"},
		report.Figure{Name: "CPU of the servers per delivery", Value: 1000 * cpu / max(n, 1), Unit: "ms", Note: "includes the events"},
	)
	r.AddCurve("webhooks", "commit to first attempt", &h.latency)
	h.api.Requests.AddTo(r)
	faults := h.tally.Faults()
	faults.FailedRequests = h.api.Requests.Failed.Load()
	r.Faults, r.Problems = &faults, append(h.tally.Problems(), r.Problems...)
	r.Conclude()
}

// paceText describes a rate.
func paceText(rate float64) string {
	if rate == 0 {
		return "as fast as the servers answer"
	}
	return fmt.Sprintf("%g a second", rate)
}
