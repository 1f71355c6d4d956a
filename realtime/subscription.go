package realtime

import (
	"context"
	"encoding/json"
	"fmt"

	"nowserving/booking/queue"
	"nowserving/models"
)

// subscription is one channel of one connection.
type subscription struct {
	conn    *conn
	channel string
	kind    channelKind
	id      string // what the channel is about

	organization *tenantHub // set by the connection's reading goroutine

	// Guarded by organization.mu.

	// ready: the snapshot is queued, changes may follow it.
	ready bool
	// The booking as the client was last sent it, and its position.
	version int64
	waits   bool
	taken   bool // by a resource
	told    int
	own     bool // the client is its customer
	// marked: the position was sent with its age.
	marked bool
	// early are events that came before the snapshot.
	early []models.BookingEvent
	// stirred: a queue changed before the snapshot.
	stirred bool

	// Guarded by conn.mu.

	left     bool
	listed   bool   // among conn.moved
	unsent   int    // messages that wait
	position int    // newest place, unless 0 or sent
	sent     int    // place the client was sent last
	typeID   string // of the booking
	// resourceID is the resource that the booking is assigned to, or empty.
	resourceID string
	minutes    int    // of the booking's type
	asOf       int64  // when the newest place was known to be right, in Unix milliseconds; 0 while it is live
	latest     []byte // newest state of a queue or display, unless sent
}

// learn records what the client was sent about its booking.
func (s *subscription) learn(version int64, stage models.Stage) {
	s.version, s.waits, s.taken = version, stage == models.StageWaiting, taken(stage)
}

// replier makes the answer to a subscribe command.
type replier func(data json.RawMessage, at queue.StreamPosition) ([]byte, bool)

// begin registers the subscription, reads the state and queues the answer, in this
// order, so that no change is lost. After an error, call leave.
func (s *subscription) begin(ctx context.Context, client Client, reply replier) error {
	organizationID := client.OrganizationID
	if organizationID == "" { // the first reading says where to register
		var err error
		if organizationID, _, err = s.snapshot(ctx, client); err != nil {
			return err
		}
	}
	s.join(organizationID)
	owner, settle, err := s.snapshot(ctx, client)
	if err != nil {
		return err
	}
	if owner != organizationID {
		return models.Errorf(models.CodeForbidden, "%s belongs to another organization", s.channel)
	}
	return settle(ctx, reply)
}

// settler makes the snapshot and queues the answer.
type settler func(context.Context, replier) error

func (s *subscription) snapshot(ctx context.Context, client Client) (string, settler, error) {
	switch s.kind {
	case channelBooking:
		snapshot, err := s.conn.hub.opts.Source.Booking(ctx, client, s.id)
		if err != nil {
			return "", nil, fmt.Errorf("read a booking: %w", err)
		}
		return snapshot.OrganizationID, func(ctx context.Context, reply replier) error {
			return s.organization.settleBooking(ctx, s, snapshot, reply)
		}, nil
	case channelQueue:
		snapshot, err := s.conn.hub.opts.Source.Queue(ctx, client, s.id)
		if err != nil {
			return "", nil, fmt.Errorf("read a queue: %w", err)
		}
		return snapshot.OrganizationID, func(ctx context.Context, reply replier) error {
			s.organization.settleQueue(ctx, s, snapshot.Data, reply)
			return nil
		}, nil
	default:
		snapshot, err := s.conn.hub.opts.Source.Display(ctx, client, s.id)
		if err != nil {
			return "", nil, fmt.Errorf("read a display: %w", err)
		}
		return snapshot.OrganizationID, func(ctx context.Context, reply replier) error {
			return s.organization.settleDisplay(ctx, s, snapshot.ResourceIDs, reply)
		}, nil
	}
}

// join registers the subscription with an organization.
func (s *subscription) join(organizationID string) {
	s.organization = s.conn.hub.enter(organizationID)
	o := s.organization
	o.mu.Lock()
	defer o.mu.Unlock()
	switch s.kind {
	case channelBooking:
		o.addBooking(s)
	case channelQueue:
		o.queue(s.id).consoles.add(s)
	case channelDisplay:
		o.addDisplay(s)
	}
}

// leave ends the subscription. Nothing is sent to it afterwards.
func (s *subscription) leave() {
	o := s.organization
	if o == nil {
		return
	}
	o.mu.Lock()
	s.ready = false
	switch s.kind {
	case channelBooking:
		o.removeBooking(s)
	case channelQueue:
		o.queue(s.id).consoles.remove(s)
		o.tidy(s.id)
	case channelDisplay:
		o.removeDisplay(s)
	}
	o.mu.Unlock()
	s.conn.mu.Lock()
	s.left, s.position, s.latest = true, 0, nil
	s.conn.drop(s)
	s.conn.mu.Unlock()
	o.hub.leave(o)
}

// start queues the answer and lets changes follow it. position is the one in the
// answer. o.mu must be held.
func (s *subscription) start(answer []byte, position int) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.sent = position
	s.conn.reply(answer)
	s.ready = true
}
