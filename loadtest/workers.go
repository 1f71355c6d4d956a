package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"

	"nowserving/loadtest/check"
)

// WorkerCommand is the argument with which this program starts itself when a
// scenario wants more processes; it then calls Work.
const WorkerCommand = "worker"

// order is one line to a worker. Every order is answered by one line.
type order struct {
	Fleet *check.Options         `json:"fleet,omitempty"`
	Links []check.ConnectionSpec `json:"links,omitempty"`
	Truth *check.Truth           `json:"truth,omitempty"`
	// Conclude, with a truth, closes the books: whoever does not know it by now
	// will be late. The clients go on, and new books begin.
	Conclude bool       `json:"conclude,omitempty"`
	Bare     *bareOrder `json:"bare,omitempty"`
}

// word is a worker's answer.
type word struct {
	Status  check.Status  `json:"status"`
	Outcome *check.Result `json:"outcome,omitempty"`
	Bare    *bareWord     `json:"bare,omitempty"`
	Error   string        `json:"error,omitempty"`
}

// Work holds clients for another process: orders come on in, a line each, and
// are answered on out. It ends when in does.
func Work(ctx context.Context, in io.Reader, out io.Writer) error {
	var w worker
	defer w.close()
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := decoder.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
				return nil
			}
			return fmt.Errorf("read an order: %w", err)
		}
		answer, err := w.do(ctx, o)
		if err != nil {
			answer.Error = err.Error()
		}
		if err := encoder.Encode(answer); err != nil {
			return fmt.Errorf("answer an order: %w", err)
		}
	}
}

// worker is one process, or one part of this one.
type worker struct {
	fleet *check.Checker
	bare  *bareServer
}

func (w *worker) close() {
	if w.fleet != nil {
		w.fleet.Close()
	}
	if w.bare != nil {
		w.bare.close()
	}
}

func (w *worker) do(ctx context.Context, o order) (word, error) {
	if o.Bare != nil {
		return w.serveBare(ctx, o.Bare)
	}
	if o.Fleet != nil {
		if w.fleet != nil {
			w.fleet.Close()
		}
		w.fleet = check.NewChecker(*o.Fleet)
	}
	if w.fleet == nil {
		return word{}, errors.New("an order before there is a fleet")
	}
	for _, l := range o.Links {
		if err := w.fleet.Open(ctx, l); err != nil {
			return word{}, err
		}
	}
	if o.Truth != nil {
		w.fleet.Update(*o.Truth)
	}
	answer := word{Status: w.fleet.Status()}
	if o.Conclude {
		answer.Outcome = w.fleet.Conclude(o.Truth.Until)
	}
	return answer, nil
}

// hand is a worker as its employer sees it: one order at a time.
type hand struct {
	mu      sync.Mutex
	in      io.WriteCloser
	decoder *json.Decoder
	encoder *json.Encoder
	wait    func() error
}

// hire starts a worker: a process of this program, or a part of this process.
func hire(ctx context.Context, process bool) (*hand, error) {
	if !process {
		orders, in := io.Pipe()
		answers, out := io.Pipe()
		done := make(chan error, 1)
		go func() {
			err := Work(ctx, orders, out)
			done <- errors.Join(err, out.CloseWithError(io.EOF), orders.Close())
		}()
		return newHand(in, answers, func() error {
			// The end of its last line may not have been read: that holds it up.
			return errors.Join(answers.Close(), <-done)
		}), nil
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, WorkerCommand) //nolint:gosec // this very program
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	return newHand(in, out, cmd.Wait), nil
}

func newHand(in io.WriteCloser, out io.Reader, wait func() error) *hand {
	return &hand{in: in, decoder: json.NewDecoder(out), encoder: json.NewEncoder(in), wait: wait}
}

// ask gives an order and waits for the answer.
func (h *hand) ask(o order) (word, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.encoder.Encode(o); err != nil {
		return word{}, fmt.Errorf("order a worker: %w", err)
	}
	var answer word
	if err := h.decoder.Decode(&answer); err != nil {
		return word{}, fmt.Errorf("hear from a worker: %w", err)
	}
	if answer.Error != "" {
		return word{}, fmt.Errorf("worker: %s", answer.Error)
	}
	return answer, nil
}

// dismiss ends the worker.
func (h *hand) dismiss() {
	h.in.Close() //nolint:errcheck // the worker has ended if this fails
	h.wait()     //nolint:errcheck // its results are in: an error now comes of an interrupted run
}

// crew is the workers that hold the clients of a scenario.
type crew struct {
	hands []*hand
}

// hireCrew starts workers. A single one is a part of this process, unless it
// shall live apart.
func hireCrew(ctx context.Context, t Traffic, o check.Options) (*crew, error) {
	c := new(crew)
	apart := t.apart || t.Processes > 1
	for range t.Processes {
		h, err := hire(ctx, apart)
		if err != nil {
			c.dismiss()
			return nil, err
		}
		c.hands = append(c.hands, h)
	}
	_, err := c.all(func(int) order { return order{Fleet: &o} })
	if err != nil {
		c.dismiss()
		return nil, err
	}
	return c, nil
}

func (c *crew) dismiss() {
	for _, h := range c.hands {
		h.dismiss()
	}
}

// all gives every worker an order and waits for all the answers.
func (c *crew) all(orderOf func(worker int) order) ([]word, error) {
	words := make([]word, len(c.hands))
	errs := make([]error, len(c.hands))
	var wg sync.WaitGroup
	for i, h := range c.hands {
		wg.Go(func() { words[i], errs[i] = h.ask(orderOf(i)) })
	}
	wg.Wait()
	return words, errors.Join(errs...)
}

// share is the part of some connections that a worker holds. More channels of a
// connection go where it is.
func (c *crew) share(links []check.ConnectionSpec, worker int) []check.ConnectionSpec {
	var mine []check.ConnectionSpec
	for _, l := range links {
		if l.Connection%len(c.hands) == worker {
			mine = append(mine, l)
		}
	}
	return mine
}

// open lets the workers open connections, some at a time.
func (c *crew) open(links []check.ConnectionSpec) error {
	for chunk := range slices.Chunk(links, 64*len(c.hands)) {
		if _, err := c.all(func(i int) order { return order{Links: c.share(chunk, i)} }); err != nil {
			return err
		}
	}
	return nil
}

// tell lets every worker check its clients, and says where they stand.
func (c *crew) tell(t check.Truth, links []check.ConnectionSpec) (check.Status, error) {
	words, err := c.all(func(i int) order { return order{Truth: &t, Links: c.share(links, i)} })
	var s check.Status
	for _, w := range words {
		s.Add(w.Status)
	}
	return s, err
}

// conclude closes the books and returns what was found.
func (c *crew) conclude(t check.Truth, links []check.ConnectionSpec) (*check.Result, error) {
	words, err := c.all(func(i int) order { return order{Truth: &t, Links: c.share(links, i), Conclude: true} })
	if err != nil {
		return nil, err
	}
	o := new(check.Result)
	for _, w := range words {
		o.Merge(w.Outcome)
	}
	return o, nil
}
