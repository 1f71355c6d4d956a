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

// WorkerCommand is the argument with which this program starts itself as a worker. The program
// then calls Work.
const WorkerCommand = "worker"

// command is one line sent to a worker. The worker answers every command with one line.
type command struct {
	Checker     *check.Options         `json:"fleet,omitempty"`
	Connections []check.ConnectionSpec `json:"links,omitempty"`
	Truth       *check.Truth           `json:"truth,omitempty"`
	// Conclude, with a Truth, checks what every client shows now and returns the result. The
	// clients stay connected and counting starts anew.
	Conclude bool         `json:"conclude,omitempty"`
	Bare     *bareCommand `json:"bare,omitempty"`
}

// reply is a worker's answer to a command.
type reply struct {
	Status  check.Status  `json:"status"`
	Outcome *check.Result `json:"outcome,omitempty"`
	Bare    *bareReply    `json:"bare,omitempty"`
	Error   string        `json:"error,omitempty"`
}

// Work holds clients for another process. It reads commands from in, one in each line, and
// writes the replies to out. It returns when in ends.
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
			return fmt.Errorf("read a command: %w", err)
		}
		answer, err := s.execute(ctx, c)
		if err != nil {
			answer.Error = err.Error()
		}
		if err := encoder.Encode(answer); err != nil {
			return fmt.Errorf("write a reply: %w", err)
		}
	}
}

// workerServer executes the commands of a worker.
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
		return reply{}, errors.New("the first command must start a checker")
	}
	for _, spec := range c.Connections {
		if err := s.checker.Open(ctx, spec); err != nil {
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

// worker is the scenario's end of a worker. It sends one command at a time.
type worker struct {
	mu      sync.Mutex
	in      io.WriteCloser
	decoder *json.Decoder
	encoder *json.Encoder
	wait    func() error
}

// startWorker starts a worker: a process of this program, or a goroutine.
func startWorker(ctx context.Context, process bool) (*worker, error) {
	if !process {
		commands, in := io.Pipe()
		answers, out := io.Pipe()
		done := make(chan error, 1)
		go func() {
			err := Work(ctx, commands, out)
			done <- errors.Join(err, out.CloseWithError(io.EOF), commands.Close())
		}()
		return newWorker(in, answers, func() error {
			// The end of the last line may not have been read, which would block the worker.
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

// send sends a command and waits for the reply.
func (w *worker) send(c command) (reply, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.encoder.Encode(c); err != nil {
		return reply{}, fmt.Errorf("send to a worker: %w", err)
	}
	var answer reply
	if err := w.decoder.Decode(&answer); err != nil {
		return reply{}, fmt.Errorf("read from a worker: %w", err)
	}
	if answer.Error != "" {
		return reply{}, fmt.Errorf("worker: %s", answer.Error)
	}
	return answer, nil
}

// stop stops the worker.
func (w *worker) stop() {
	w.in.Close() //nolint:errcheck // an error means that the worker has ended
	w.wait()     //nolint:errcheck // the results are complete; an error comes from an interrupted run
}

// workers are the workers that hold the clients of a scenario.
type workers struct {
	list []*worker
}

// startWorkers starts workers. A single one is a goroutine, unless Traffic.separate is set.
func startWorkers(ctx context.Context, t Traffic, opts check.Options) (*workers, error) {
	ws := new(workers)
	apart := t.separate || t.Processes > 1
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

// all sends a command to every worker and waits for the replies.
func (ws *workers) all(commandOf func(worker int) command) ([]reply, error) {
	replies := make([]reply, len(ws.list))
	errs := make([]error, len(ws.list))
	var wg sync.WaitGroup
	for i, w := range ws.list {
		wg.Go(func() { replies[i], errs[i] = w.send(commandOf(i)) })
	}
	wg.Wait()
	return replies, errors.Join(errs...)
}

// shareOf returns the connections that a worker holds. More channels of a connection go to the
// same worker.
func (ws *workers) shareOf(connections []check.ConnectionSpec, worker int) []check.ConnectionSpec {
	var mine []check.ConnectionSpec
	for _, spec := range connections {
		if spec.Connection%len(ws.list) == worker {
			mine = append(mine, spec)
		}
	}
	return mine
}

// open opens connections, some at a time.
func (ws *workers) open(connections []check.ConnectionSpec) error {
	for chunk := range slices.Chunk(connections, 64*len(ws.list)) {
		if _, err := ws.all(func(i int) command { return command{Connections: ws.shareOf(chunk, i)} }); err != nil {
			return err
		}
	}
	return nil
}

// update lets every worker check its clients and returns their status.
func (ws *workers) update(t check.Truth, connections []check.ConnectionSpec) (check.Status, error) {
	replies, err := ws.all(func(i int) command { return command{Truth: &t, Connections: ws.shareOf(connections, i)} })
	var s check.Status
	for _, r := range replies {
		s.Add(r.Status)
	}
	return s, err
}

// conclude returns the results of all workers.
func (ws *workers) conclude(t check.Truth, connections []check.ConnectionSpec) (*check.Result, error) {
	replies, err := ws.all(func(i int) command {
		return command{Truth: &t, Connections: ws.shareOf(connections, i), Conclude: true}
	})
	if err != nil {
		return nil, err
	}
	o := new(check.Result)
	for _, r := range replies {
		o.Merge(r.Outcome)
	}
	return o, nil
}
