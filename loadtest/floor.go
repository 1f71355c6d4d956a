package loadtest

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nowserving/loadtest/check"
	"nowserving/loadtest/client"
	"nowserving/loadtest/report"

	"github.com/centrifugal/protocol"
)

const (
	// floorBlock is the number of connections that a writer takes at a time.
	floorBlock = 64
	// defaultWriters is the number of writers.
	defaultWriters = 2
)

// FloorOptions are the options of Floor.
type FloorOptions struct {
	Traffic
	// Writers is the number of goroutines that write. Default 2.
	Writers int
}

// Floor measures what this machine needs to write positions to sockets and does nothing else:
// no HTTP, no database, no subscriptions. Another process writes the same bytes that a server
// would write, once to each connection in each round. The clients are the same as in the other
// scenarios. A server can be faster only if it writes less.
func Floor(ctx context.Context, opts FloorOptions) (*report.Report, error) {
	return floor(ctx, opts, true)
}

// floor is Floor with the sockets in another process or in this one.
func floor(ctx context.Context, opts FloorOptions, process bool) (*report.Report, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	r, end, err := opts.open(ctx, process)
	if err != nil {
		return nil, err
	}
	defer end()
	return r.run(ctx, "floor", nil)
}

// open starts the server and connects the clients.
func (opts FloorOptions) open(ctx context.Context, process bool) (_ *trafficRun, _ func(), err error) {
	kind, err := client.ParseProtocol(opts.Protocol)
	if err != nil {
		return nil, nil, err
	}
	server, err := startWorker(ctx, process)
	if err != nil {
		return nil, nil, err
	}
	r := &trafficRun{traffic: opts.Traffic, departures: check.NewDepartureLog(opts.Queues), tally: check.NewTally()}
	end := func() {
		if r.workers != nil {
			r.workers.stop()
		}
		server.stop()
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	// No patient reaches the front of the queue: the ranks start beyond the patients called in
	// the run.
	placements := opts.placements()
	for i := range placements {
		placements[i].rank += opts.heads()
	}
	listening, err := server.send(command{Bare: &bareCommand{
		Listen: true, Writers: cmp.Or(opts.Writers, defaultWriters), Protocol: opts.Protocol, Connections: bareConnections(placements, opts.connections()),
	}})
	if err != nil {
		return nil, nil, err
	}
	r.serve = func(_ context.Context, queue, _ int) error {
		r.departures.Record(queue, time.Now())
		ahead := 1 // the next round is known before the last is written
		if r.traffic.Rate > 0 || r.traffic.Burst > 0 {
			ahead = opts.heads()
		}
		_, err := server.send(command{Bare: &bareCommand{Serve: 1, Queue: queue, Ahead: ahead}})
		return err
	}
	r.readUsage = func(context.Context) (client.Usage, error) {
		answer, err := server.send(command{Bare: &bareCommand{}})
		if err != nil {
			return client.Usage{}, err
		}
		return client.Usage{CPU: answer.Bare.CPU}, nil
	}
	r.workers, err = startWorkers(ctx, opts.Traffic, check.Options{
		Nodes: []string{"http://" + listening.Bare.Address}, Protocol: kind, Bound: opts.Bound, Minutes: visitMinutes,
	})
	if err != nil {
		return nil, nil, err
	}
	if err := r.connectAll(ctx, bareSpecs(placements, opts.connections())); err != nil {
		return nil, nil, err
	}
	return r, end, awaitBare(ctx, server, opts.connections())
}

// bareSpecs describes the connections to the checker.
func bareSpecs(placements []placement, connections int) []check.ConnectionSpec {
	specs := make([]check.ConnectionSpec, connections)
	for i, s := range placements {
		spec := &specs[s.connection]
		spec.Connection, spec.Hello = s.connection, binary.BigEndian.AppendUint32(nil, uint32(s.connection))
		spec.Channels = append(spec.Channels, check.ChannelSpec{
			Patient: i, Booking: bareBooking(i), Channel: "booking:" + bareBooking(i), Queue: s.queue, Rank: s.rank,
		})
	}
	return specs
}

// awaitBare waits until the server has accepted all connections.
func awaitBare(ctx context.Context, server *worker, connections int) error {
	for until := time.Now().Add(connectTimeout); ; {
		answer, err := server.send(command{Bare: &bareCommand{}})
		if err != nil {
			return err
		}
		if answer.Bare.Connected == connections {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("%d of %d sockets were accepted", answer.Bare.Connected, connections)
		}
		if err := client.Pause(ctx, updateInterval); err != nil {
			return err
		}
	}
}

// bareBooking returns a booking ID of the usual length.
func bareBooking(patient int) string { return fmt.Sprintf("b%019d", patient) }

// bareCommand starts or controls the server that only writes.
type bareCommand struct {
	Listen      bool             `json:"listen,omitempty"`
	Writers     int              `json:"writers,omitempty"`
	Protocol    string           `json:"protocol,omitempty"`
	Connections []bareConnection `json:"phones,omitempty"`
	// Serve is the number of patients called in a queue. The reply is sent when at most Ahead
	// of them have not been written yet.
	Serve int `json:"serve,omitempty"`
	Queue int `json:"queue,omitempty"`
	Ahead int `json:"ahead,omitempty"`
}

// bareReply is the reply to a bareCommand.
type bareReply struct {
	Address   string  `json:"address,omitempty"`
	Connected int     `json:"connected"`
	CPU       float64 `json:"cpu"` // CPU seconds used so far
}

// bareConnection is one connection and the bookings it watches.
type bareConnection struct {
	Queue    int      `json:"queue"`
	Bookings []string `json:"bookings"`
	Ranks    []int    `json:"ranks"`
}

func bareConnections(placements []placement, n int) []bareConnection {
	connections := make([]bareConnection, n)
	for i, s := range placements {
		p := &connections[s.connection]
		p.Queue = s.queue
		p.Bookings, p.Ranks = append(p.Bookings, bareBooking(i)), append(p.Ranks, s.rank)
	}
	return connections
}

// bareServer writes positions to sockets.
type bareServer struct {
	listener    net.Listener
	writers     int
	protocol    protocol.Type
	connections []bareConnection
	wg          sync.WaitGroup

	mu        sync.Mutex
	changed   *sync.Cond
	conns     []net.Conn
	connected int
	queues    []bareQueue
	err       error
	closed    bool
}

type bareQueue struct {
	connections []int
	served      int
	written     int
}

func (s *workerServer) serveBare(ctx context.Context, c *bareCommand) (reply, error) {
	if c.Listen {
		b, err := listenBare(ctx, c)
		if err != nil {
			return reply{}, err
		}
		s.bare = b
	}
	if s.bare == nil {
		return reply{}, errors.New("nothing listens yet")
	}
	if c.Serve > 0 {
		if err := s.bare.serve(c.Queue, c.Serve, c.Ahead); err != nil {
			return reply{}, err
		}
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return reply{}, fmt.Errorf("read the time used: %w", err)
	}
	s.bare.mu.Lock()
	defer s.bare.mu.Unlock()
	return reply{Bare: &bareReply{
		Address: s.bare.listener.Addr().String(), Connected: s.bare.connected,
		CPU: time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds(),
	}}, s.bare.err
}

func listenBare(ctx context.Context, c *bareCommand) (*bareServer, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	b := &bareServer{listener: listener, writers: c.Writers, protocol: protocol.Type(c.Protocol), connections: c.Connections, conns: make([]net.Conn, len(c.Connections))}
	b.changed = sync.NewCond(&b.mu)
	for i, p := range c.Connections {
		for len(b.queues) <= p.Queue {
			b.queues = append(b.queues, bareQueue{})
		}
		b.queues[p.Queue].connections = append(b.queues[p.Queue].connections, i)
	}
	b.wg.Go(b.accept)
	b.wg.Go(b.write)
	return b, nil
}

// accept accepts connections. The first bytes of each are its number.
func (b *bareServer) accept() {
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			return // closed
		}
		b.wg.Go(func() {
			var hello [4]byte
			_, err := io.ReadFull(conn, hello[:])
			i := int(binary.BigEndian.Uint32(hello[:]))
			b.mu.Lock()
			defer b.mu.Unlock()
			if err != nil || b.closed || i >= len(b.conns) || b.conns[i] != nil {
				conn.Close() //nolint:errcheck // the connection is refused
				return
			}
			b.conns[i] = conn
			b.connected++
		})
	}
}

func (b *bareServer) close() {
	b.listener.Close() //nolint:errcheck // the measurement is over
	b.mu.Lock()
	b.closed = true
	for _, c := range b.conns {
		if c != nil {
			c.Close() //nolint:errcheck // the measurement is over
		}
	}
	b.changed.Broadcast()
	b.mu.Unlock()
	b.wg.Wait()
}

func (b *bareServer) serve(queue, heads, ahead int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := &b.queues[queue]
	q.served += heads
	b.changed.Broadcast()
	for q.served-q.written > ahead && b.err == nil && !b.closed {
		b.changed.Wait()
	}
	return b.err
}

// write writes rounds while a queue has changed: the newest state of one queue to all its
// connections.
func (b *bareServer) write() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for turn := 0; !b.closed && b.err == nil; turn++ {
		q := b.nextQueue(turn)
		if q == nil {
			b.changed.Wait()
			continue
		}
		served := q.served
		b.mu.Unlock()
		err := b.round(q.connections, served)
		b.mu.Lock()
		q.written = served
		if err != nil && !b.closed {
			b.err = err
		}
		b.changed.Broadcast()
	}
}

// nextQueue returns the next queue that has changed, in turn.
func (b *bareServer) nextQueue(turn int) *bareQueue {
	for i := range b.queues {
		if q := &b.queues[(turn+i)%len(b.queues)]; q.written < q.served {
			return q
		}
	}
	return nil
}

// round writes once to each connection of a queue.
func (b *bareServer) round(connections []int, served int) error {
	var next atomic.Int64
	errs := make([]error, b.writers)
	var wg sync.WaitGroup
	for i := range b.writers {
		wg.Go(func() { errs[i] = b.writeBlocks(connections, served, &next) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// writeBlocks writes to one block of connections after another, until all are taken. next
// is the first connection that no writer has taken.
func (b *bareServer) writeBlocks(connections []int, served int, next *atomic.Int64) error {
	var payload, frame []byte
	for {
		from := int(next.Add(floorBlock)) - floorBlock
		if from >= len(connections) {
			return nil
		}
		for _, connection := range connections[from:min(from+floorBlock, len(connections))] {
			payload, frame = b.frame(payload[:0], frame[:0], connection, served)
			if _, err := b.conns[connection].Write(frame); err != nil {
				return err
			}
		}
	}
}

// frame encodes the positions of a connection in one frame.
func (b *bareServer) frame(payload, frame []byte, connection, served int) ([]byte, []byte) {
	p := &b.connections[connection]
	var data [192]byte
	var channel [64]byte
	for i, id := range p.Bookings {
		position := p.Ranks[i] - served
		payload = client.AppendPush(payload, b.protocol, append(append(channel[:0], "booking:"...), id...),
			client.AppendPosition(data[:0], id, position, position*visitMinutes))
	}
	return payload, client.AppendMessage(frame, b.protocol, payload)
}
