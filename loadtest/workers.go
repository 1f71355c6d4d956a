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

// command is one line to a worker. Every order is answered by one line.
type command struct {
	Checker     *check.Options         `json:"fleet,omitempty"`
	Connections []check.ConnectionSpec `json:"links,omitempty"`
	Truth       *check.Truth           `json:"truth,omitempty"`
	// Conclude, with a truth, closes the books: whoever does not know it by now
	// will be late. The clients go on, and new books begin.
	Conclude bool         `json:"conclude,omitempty"`
	Bare     *bareCommand `json:"bare,omitempty"`
}

// reply is a worker's answer.
type reply struct {
	Status  check.Status  `json:"status"`
	Outcome *check.Result `json:"outcome,omitempty"`
	Bare    *bareReply    `json:"bare,omitempty"`
	Error   string        `json:"error,omitempty"`
}

// Work holds clients for another process: orders come on in, a line each, and
// are answered on out. It ends when in does.
func Work(ctx context.Context, in io.Reader, out io.Writer) error {
	var s workerServer
	defer s.close()
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var c command
		if err := decoder.Decode(&c); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
				return nil
			}
			return fmt.Errorf("read an order: %w", err)
		}
		answer, err := s.execute(ctx, c)
		if err != nil {
			answer.Error = err.Error()
		}
		if err := encoder.Encode(answer); err != nil {
			return fmt.Errorf("answer an order: %w", err)
		}
	}
}

// workerServer is one process, or one part of this one.
type workerServer struct {
	checker *check.Checker
	bare    *bareServer
}

func (s *workerServer) close() {
	if s.checker != nil {
		s.checker.Close()
	}
	if s.bare != nil {
		s.bare.close()
	}
}

func (s *workerServer) execute(ctx context.Context, c command) (reply, error) {
	if c.Bare != nil {
		return s.serveBare(ctx, c.Bare)
	}
	if c.Checker != nil {
		if s.checker != nil {
			s.checker.Close()
		}
		s.checker = check.NewChecker(*c.Checker)
	}
	if s.checker == nil {
		return reply{}, errors.New("an order before there is a fleet")
	}
	for _, l := range c.Connections {
		if err := s.checker.Open(ctx, l); err != nil {
			return reply{}, err
		}
	}
	if c.Truth != nil {
		s.checker.Update(*c.Truth)
	}
	answer := reply{Status: s.checker.Status()}
	if c.Conclude {
		answer.Outcome = s.checker.Conclude(c.Truth.Until)
	}
	return answer, nil
}

// worker is a worker as its employer sees it: one order at a time.
type worker struct {
	mu      sync.Mutex
	in      io.WriteCloser
	decoder *json.Decoder
	encoder *json.Encoder
	wait    func() error
}

// startWorker starts a worker: a process of this program, or a part of this process.
func startWorker(ctx context.Context, process bool) (*worker, error) {
	if !process {
		orders, in := io.Pipe()
		answers, out := io.Pipe()
		done := make(chan error, 1)
		go func() {
			err := Work(ctx, orders, out)
			done <- errors.Join(err, out.CloseWithError(io.EOF), orders.Close())
		}()
		return newWorker(in, answers, func() error {
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
	return newWorker(in, out, cmd.Wait), nil
}

func newWorker(in io.WriteCloser, out io.Reader, wait func() error) *worker {
	return &worker{in: in, decoder: json.NewDecoder(out), encoder: json.NewEncoder(in), wait: wait}
}

// send gives an order and waits for the answer.
func (w *worker) send(c command) (reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.encoder.Encode(c); err != nil {
		return reply{}, fmt.Errorf("order a worker: %w", err)
	}
	var answer reply
	if err := w.decoder.Decode(&answer); err != nil {
		return reply{}, fmt.Errorf("hear from a worker: %w", err)
	}
	if answer.Error != "" {
		return reply{}, fmt.Errorf("worker: %s", answer.Error)
	}
	return answer, nil
}

// stop ends the worker.
func (w *worker) stop() {
	w.in.Close() //nolint:errcheck // the worker has ended if this fails
	w.wait()     //nolint:errcheck // its results are in: an error now comes of an interrupted run
}

// workers is the workers that hold the clients of a scenario.
type workers struct {
	list []*worker
}

// startWorkers starts workers. A single one is a part of this process, unless it
// shall live apart.
func startWorkers(ctx context.Context, t Traffic, opts check.Options) (*workers, error) {
	ws := new(workers)
	apart := t.apart || t.Processes > 1
	for range t.Processes {
		w, err := startWorker(ctx, apart)
		if err != nil {
			ws.stop()
			return nil, err
		}
		ws.list = append(ws.list, w)
	}
	_, err := ws.all(func(int) command { return command{Checker: &opts} })
	if err != nil {
		ws.stop()
		return nil, err
	}
	return ws, nil
}

func (ws *workers) stop() {
	for _, w := range ws.list {
		w.stop()
	}
}

// all gives every worker an order and waits for all the answers.
func (ws *workers) all(orderOf func(worker int) command) ([]reply, error) {
	words := make([]reply, len(ws.list))
	errs := make([]error, len(ws.list))
	var wg sync.WaitGroup
	for i, w := range ws.list {
		wg.Go(func() { words[i], errs[i] = w.send(orderOf(i)) })
	}
	wg.Wait()
	return words, errors.Join(errs...)
}

// shareOf is the part of some connections that a worker holds. More channels of a
// connection go where it is.
func (ws *workers) shareOf(links []check.ConnectionSpec, worker int) []check.ConnectionSpec {
	var mine []check.ConnectionSpec
	for _, l := range links {
		if l.Connection%len(ws.list) == worker {
			mine = append(mine, l)
		}
	}
	return mine
}

// open lets the workers open connections, some at a time.
func (ws *workers) open(links []check.ConnectionSpec) error {
	for chunk := range slices.Chunk(links, 64*len(ws.list)) {
		if _, err := ws.all(func(i int) command { return command{Connections: ws.shareOf(chunk, i)} }); err != nil {
			return err
		}
	}
	return nil
}

// update lets every worker check its clients, and says where they stand.
func (ws *workers) update(t check.Truth, links []check.ConnectionSpec) (check.Status, error) {
	words, err := ws.all(func(i int) command { return command{Truth: &t, Connections: ws.shareOf(links, i)} })
	var s check.Status
	for _, r := range words {
		s.Add(r.Status)
	}
	return s, err
}

// conclude closes the books and returns what was found.
func (ws *workers) conclude(t check.Truth, links []check.ConnectionSpec) (*check.Result, error) {
	words, err := ws.all(func(i int) command { return command{Truth: &t, Connections: ws.shareOf(links, i), Conclude: true} })
	if err != nil {
		return nil, err
	}
	o := new(check.Result)
	for _, r := range words {
		o.Merge(r.Outcome)
	}
	return o, nil
}
