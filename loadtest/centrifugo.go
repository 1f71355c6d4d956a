package loadtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// defaultBatch is the number of publications in a request.
	defaultBatch = 1000
	// defaultPublishers is the number of concurrent requests.
	defaultPublishers = 4
	// maxBatchAnswer bounds the body that is read of a response.
	maxBatchAnswer = 16 << 20
)

// CentrifugoOptions are the options of Centrifugo.
type CentrifugoOptions struct {
	Traffic
	URL string
	// APIKey is http_api.key of Centrifugo's configuration, TokenSecret
	// client.token.hmac_secret_key.
	APIKey, TokenSecret string
	// ChannelPrefix is the start of a channel's name, before the patient's ID. A colon in it
	// selects a namespace of the configuration.
	ChannelPrefix string
	// Batch is the number of publications in a request, Publishers the number of concurrent
	// requests.
	Batch, Publishers int
}

// Centrifugo sends the traffic of Queue through a Centrifugo 6, for comparison. For each
// patient called it publishes the new position of each waiting patient over the HTTP API in
// parallel batches. A change is true from the moment this program makes it.
func Centrifugo(ctx context.Context, opts CentrifugoOptions) (*report.Report, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	p, r, end, err := opts.open(ctx)
	if err != nil {
		return nil, err
	}
	err = r.play(ctx)
	var result *report.Report
	if err == nil {
		result, err = r.report("centrifugo", p.requests)
	}
	if err := errors.Join(err, end()); err != nil {
		return nil, err
	}
	result.AddSetting("publications", "%d in a request, %d requests at once", p.opts.Batch, p.opts.Publishers)
	if p.usageErr != nil {
		result.AddSetting("cost of the server", "unknown: %v (prometheus.enabled)", p.usageErr)
	}
	return result, nil
}

// open connects the clients and starts the publisher.
func (opts CentrifugoOptions) open(ctx context.Context) (_ *publisher, _ *trafficRun, end func() error, err error) {
	opts.Batch, opts.Publishers = cmp.Or(opts.Batch, defaultBatch), cmp.Or(opts.Publishers, defaultPublishers)
	if opts.APIKey == "" || opts.TokenSecret == "" {
		return nil, nil, nil, errors.New("the key of the HTTP API and the secret of the tokens are required")
	}
	if opts.Batch < 0 || opts.Publishers < 0 {
		return nil, nil, nil, errors.New("batch and publishers must be more than zero")
	}
	nodes, err := client.ParseNodes([]string{opts.URL})
	if err != nil {
		return nil, nil, nil, err
	}
	kind, err := client.ParseProtocol(opts.Protocol)
	if err != nil {
		return nil, nil, nil, err
	}
	p := &publisher{
		opts: opts, url: nodes[0], http: client.NewHTTPClient(), requests: client.NewRequestStats(), departures: check.NewDepartureLog(opts.Queues),
		due: make([]int, opts.Queues), published: make([]int, opts.Queues),
	}
	p.changed = sync.NewCond(&p.mu)
	r := &trafficRun{traffic: opts.Traffic, departures: p.departures, tally: check.NewTally()}
	r.serve = func(_ context.Context, queue, _ int) error {
		return p.serve(queue, r.traffic.Rate == 0 && r.traffic.Burst == 0)
	}
	p.measure(ctx, r)
	defer func() {
		if err != nil {
			p.http.CloseIdleConnections()
			if r.workers != nil {
				r.workers.stop()
			}
		}
	}()
	// No patient reaches the front of the queue: the ranks start beyond the patients called in
	// the run.
	placements := opts.placements()
	for i := range placements {
		placements[i].rank += opts.heads()
	}
	connections, err := p.connectionSpecs(placements)
	if err != nil {
		return nil, nil, nil, err
	}
	r.workers, err = startWorkers(ctx, opts.Traffic, check.Options{Nodes: nodes, Protocol: kind, Bound: opts.Bound, Minutes: visitMinutes})
	if err != nil {
		return nil, nil, nil, err
	}
	if err := r.connectAll(ctx, connections); err != nil {
		return nil, nil, nil, err
	}
	stop := p.start(ctx)
	return p, r, func() error {
		err := stop()
		r.workers.stop()
		p.http.CloseIdleConnections()
		return err
	}, nil
}

// publisher publishes positions through Centrifugo's HTTP API.
type publisher struct {
	opts       CentrifugoOptions
	url        string
	http       *http.Client
	requests   *client.RequestStats
	departures *check.DepartureLog
	recipients [][]recipient // by queue
	// usageErr is the reason why the usage of the server is unknown.
	usageErr error

	mu        sync.Mutex
	changed   *sync.Cond
	due       []int // patients called, by queue
	published []int // patients called whose publications were sent, by queue
	err       error
	closed    bool
}

// recipient is one patient of the publisher.
type recipient struct {
	booking string
	rank    int
}

// measure lets the run read the usage of the server, if the server exports it.
func (p *publisher) measure(ctx context.Context, r *trafficRun) {
	read := func(ctx context.Context) (client.Usage, error) {
		return client.ScrapeUsage(ctx, p.http, "", []string{p.url + "/metrics"})
	}
	if _, p.usageErr = read(ctx); p.usageErr == nil {
		r.readUsage = read
	}
}

// connectionSpecs signs the tokens and returns the connections. The tokens do not expire.
func (p *publisher) connectionSpecs(placements []placement) ([]check.ConnectionSpec, error) {
	connections := make([]check.ConnectionSpec, p.opts.connections())
	p.recipients = make([][]recipient, p.opts.Queues)
	for i, s := range placements {
		booking := bareBooking(i)
		p.recipients[s.queue] = append(p.recipients[s.queue], recipient{booking, s.rank})
		user := fmt.Sprintf("phone%d", s.connection)
		spec := &connections[s.connection]
		if spec.Connection = s.connection; spec.Token == "" {
			var err error
			if spec.Token, err = p.sign(jwt.MapClaims{"sub": user}); err != nil {
				return nil, err
			}
		}
		channel := p.opts.ChannelPrefix + booking
		token, err := p.sign(jwt.MapClaims{"sub": user, "channel": channel})
		if err != nil {
			return nil, err
		}
		spec.Channels = append(spec.Channels, check.ChannelSpec{Patient: i, Booking: booking, Channel: channel, Token: token, Queue: s.queue, Rank: s.rank})
	}
	return connections, nil
}

func (p *publisher) sign(claims jwt.MapClaims) (string, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(p.opts.TokenSecret))
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return token, nil
}

// serve records a call. If wait is set, it waits until the publications were sent.
func (p *publisher) serve(queue int, wait bool) error {
	departed := p.departures.Record(queue, time.Now())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due[queue] = max(p.due[queue], departed)
	p.changed.Broadcast()
	for wait && p.published[queue] < departed && p.err == nil && !p.closed {
		p.changed.Wait()
	}
	return p.err
}

// start publishes the calls of each queue one after another until it is stopped.
func (p *publisher) start(parent context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(parent)
	var wg sync.WaitGroup
	for q := range p.opts.Queues {
		wg.Go(func() {
			for {
				departed, ok := p.next(q)
				if !ok {
					return
				}
				err := p.publish(ctx, q, departed)
				p.mu.Lock()
				p.published[q] = departed
				if err != nil && !p.closed {
					p.err = errors.Join(p.err, err)
				}
				p.changed.Broadcast()
				p.mu.Unlock()
			}
		})
	}
	return func() error {
		p.mu.Lock()
		p.closed = true
		p.changed.Broadcast()
		p.mu.Unlock()
		cancel()
		wg.Wait()
		return p.err
	}
}

// next waits for a call that has not been published.
func (p *publisher) next(queue int) (departed int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.published[queue] == p.due[queue] && !p.closed && p.err == nil {
		p.changed.Wait()
	}
	return p.published[queue] + 1, !p.closed && p.err == nil
}

// publish sends the positions of all patients of a queue.
func (p *publisher) publish(ctx context.Context, queue, departed int) error {
	batches := make(chan []recipient)
	errs := make([]error, p.opts.Publishers)
	var wg sync.WaitGroup
	for i := range p.opts.Publishers {
		wg.Go(func() {
			var body []byte
			for batch := range batches {
				if errs[i] == nil {
					body = p.body(body[:0], batch, departed)
					errs[i] = p.post(ctx, body, len(batch))
				}
			}
		})
	}
	for batch := range slices.Chunk(p.recipients[queue], p.opts.Batch) {
		batches <- batch
	}
	close(batches)
	wg.Wait()
	return errors.Join(errs...)
}

func (p *publisher) body(b []byte, batch []recipient, departed int) []byte {
	b = append(b, `{"parallel":true,"commands":[`...)
	for i, r := range batch {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"publish":{"channel":"`...)
		b = append(b, p.opts.ChannelPrefix...)
		b = append(b, r.booking...)
		b = append(b, `","data":`...)
		b = client.AppendPosition(b, r.booking, r.rank-departed, (r.rank-departed)*visitMinutes)
		b = append(b, `}}`...)
	}
	return append(b, `]}`...)
}

// post sends a batch. The response has HTTP 200 even if some commands failed, so each reply is
// checked.
func (p *publisher) post(ctx context.Context, body []byte, commands int) (err error) {
	const operation = "batch"
	defer func() {
		if err != nil {
			p.requests.Failed.Add(1)
			err = fmt.Errorf("%s: %w", operation, err)
		}
	}()
	started := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/api/batch", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-API-Key", p.opts.APIKey)
	res, err := p.http.Do(req)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxBatchAnswer))
	if closeErr := res.Body.Close(); err == nil {
		err = closeErr
	}
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("HTTP %d", res.StatusCode)
	}
	var answer struct {
		Error   *centrifugoError `json:"error"`
		Replies []struct {
			Error *centrifugoError `json:"error"`
		} `json:"replies"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return fmt.Errorf("unexpected response: %w", err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	if len(answer.Replies) != commands {
		return fmt.Errorf("%d replies to %d commands", len(answer.Replies), commands)
	}
	for _, r := range answer.Replies {
		if r.Error != nil {
			return r.Error
		}
	}
	p.requests.Answered(operation, time.Since(started))
	return nil
}

// centrifugoError is an error in a response of Centrifugo.
type centrifugoError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *centrifugoError) Error() string { return fmt.Sprintf("error %d %s", e.Code, e.Message) }
