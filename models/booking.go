package models

import (
	"cmp"
	"time"
)

// Status is the state of a booking as the API document names it.
type Status string

// The statuses of a booking.
const (
	StatusPendingApproval   Status = "PENDING_APPROVAL"
	StatusPendingPayment    Status = "PENDING_PAYMENT"
	StatusPendingAssignment Status = "PENDING_ASSIGNMENT"
	StatusConfirmed         Status = "CONFIRMED"
	StatusCanceled          Status = "CANCELED"
	StatusRejected          Status = "REJECTED"
)

// Valid reports whether s is one of the statuses.
func (s Status) Valid() bool {
	switch s {
	case StatusPendingApproval, StatusPendingPayment, StatusPendingAssignment,
		StatusConfirmed, StatusCanceled, StatusRejected:
		return true
	}
	return false
}

// Stage refines a status for a visit. It is empty until the booking first enters a
// queue or, for an appointment, until the visit begins or the appointment is canceled
// or missed.
type Stage string

// The stages of a visit.
const (
	StageNone    Stage = ""
	StageWaiting Stage = "WAITING"
	StageHeld    Stage = "HELD"
	StageCalled  Stage = "CALLED"
	StageServing Stage = "SERVING"
	StageDone    Stage = "DONE"
	StageNoShow  Stage = "NO_SHOW"
	StageLeft    Stage = "LEFT"
)

// Action is a step of a booking.
type Action string

// The actions that make a booking.
const (
	ActionJoin       Action = "join"
	ActionSchedule   Action = "schedule"
	ActionReschedule Action = "reschedule" // of the new one; the old one is canceled
)

// The actions after that, each one row of the table of transitions.
const (
	ActionAssign Action = "assign"
	ActionRecall Action = "recall"
	ActionStart  Action = "start"
	ActionEnd    Action = "end"
	ActionNoShow Action = "noShow"
	ActionHold   Action = "hold"
	ActionReturn Action = "return"
	ActionCancel Action = "cancel"
	ActionExpire Action = "expire"
	ActionUndo   Action = "undo" // leads back along the row of what it takes back

	ActionApprove Action = "approve"
	ActionReject  Action = "reject"
	ActionConfirm Action = "confirm" // of a temporary appointment
)

// The actions that delete a booking.
const (
	ActionExpirePayment     Action = "expirePayment"     // it was not paid in time
	ActionExpireReservation Action = "expireReservation" // it was not confirmed in time
)

// How long a temporary appointment is reserved, in minutes.
const (
	MinReservation     = 1
	MaxReservation     = 24 * 60
	DefaultReservation = 15
)

// UndoWindow is how long staff may undo their last action on a booking.
const UndoWindow = 30 * time.Second

// Undoable reports whether staff may undo an action. A recall can't be undone, because
// the patient has received it; nor can a deadline, which is no action of staff.
func (a Action) Undoable() bool {
	switch a {
	case ActionAssign, ActionStart, ActionEnd, ActionNoShow, ActionHold, ActionReturn, ActionCancel:
		return true
	default:
		return false
	}
}

// Transition says from which statuses and stages an action is legal and where
// it leads.
type Transition struct {
	FromStatus []Status
	FromStage  []Stage
	Status     Status
	Stage      Stage
	// Event is the type of the event the action writes.
	Event EventType
}

// transitions is the only list of legal steps.
var transitions = map[Action]Transition{
	ActionAssign: {[]Status{StatusPendingAssignment}, []Stage{StageWaiting, StageHeld}, StatusConfirmed, StageCalled, EventAssigned},
	ActionRecall: {[]Status{StatusConfirmed}, []Stage{StageCalled}, StatusConfirmed, StageCalled, EventCalled},
	// A confirmed booking without a stage is an appointment, which is not called.
	ActionStart:  {[]Status{StatusConfirmed}, []Stage{StageNone, StageCalled}, StatusConfirmed, StageServing, EventUpdated},
	ActionEnd:    {[]Status{StatusConfirmed}, []Stage{StageCalled, StageServing}, StatusConfirmed, StageDone, EventEnded},
	ActionNoShow: {[]Status{StatusConfirmed}, []Stage{StageNone, StageCalled}, StatusConfirmed, StageNoShow, EventEnded},
	ActionHold:   {[]Status{StatusPendingAssignment}, []Stage{StageWaiting}, StatusPendingAssignment, StageHeld, EventUpdated},
	ActionReturn: {[]Status{StatusPendingAssignment}, []Stage{StageHeld}, StatusPendingAssignment, StageWaiting, EventUpdated},
	ActionCancel: {
		[]Status{StatusPendingApproval, StatusPendingPayment, StatusPendingAssignment, StatusConfirmed},
		[]Stage{StageNone, StageWaiting, StageHeld, StageCalled}, StatusCanceled, StageLeft, EventCanceled,
	},
	ActionExpire: {[]Status{StatusPendingAssignment}, []Stage{StageWaiting, StageHeld}, StatusRejected, StageLeft, EventExpired},

	ActionApprove: {[]Status{StatusPendingApproval}, []Stage{StageNone}, StatusConfirmed, StageNone, EventConfirmed},
	ActionReject:  {[]Status{StatusPendingApproval}, []Stage{StageNone}, StatusRejected, StageLeft, EventRejected},
	ActionConfirm: {[]Status{StatusConfirmed}, []Stage{StageNone}, StatusConfirmed, StageNone, EventScheduled},
}

// TransitionOf returns the row of the table for an action.
func TransitionOf(a Action) Transition { return transitions[a] }

// Priority bands: 0 is routine, a higher band is served first.
const (
	MinPriority = 0
	MaxPriority = 100
)

// The assignment timeout in minutes: what a caller asks for is clamped to
// these bounds (Instant Booking, "Assignment Timeout"). The default is that of
// types, whose queueTimeoutMinutes is the default of their bookings.
const (
	MinAssignmentTimeout     = 5
	MaxAssignmentTimeout     = 180
	DefaultAssignmentTimeout = 180
)

// ClampTimeout returns an assignment timeout within the bounds. A fraction is
// dropped.
func ClampTimeout(minutes float64) int {
	return int(min(max(minutes, MinAssignmentTimeout), MaxAssignmentTimeout))
}

// Recall limits: a called patient may be called again this many times, with
// this long between two calls.
const (
	MaxRecalls  = 3
	RecallPause = time.Minute
)

// Booking is one customer's request for one type.
type Booking struct {
	// Seq is the join sequence: the number the database gives at creation. It
	// decides the order within a priority band and never changes.
	Seq            int64 `gorm:"primaryKey;autoIncrement"`
	ID             string
	OrganizationID string
	CustomerID     string
	// FirstName and LastName name the visitor if that is not the customer: several
	// people may share a phone. Empty: the customer's name.
	FirstName, LastName string
	TypeID              string
	ResourceID          *string
	Status              Status
	Stage               Stage
	Ticket              string
	// TicketHash is a keyed hash of the token that shows and cancels the booking.
	TicketHash *string
	// LocalDay is the organization's day the ticket was drawn for, 2006-01-02:
	// that of the joining, or of the appointment.
	LocalDay string
	Priority int
	// Version grows by one with every change; the queue index refuses older ones.
	Version int64

	FilterCategory  string
	FilterResources bool // true when rows in booking_filter_resources name the resources allowed

	Note string
	Info Fields `gorm:"serializer:json"`

	AssignmentTimeout  int // minutes
	AssignmentDeadline *time.Time
	PaymentDeadline    *time.Time

	CreatedAt    time.Time
	UpdatedAt    time.Time
	PendingAt    *time.Time // reached PENDING_ASSIGNMENT
	CalledAt     *time.Time
	LastCalledAt *time.Time
	RecallCount  int
	StartedAt    *time.Time
	EndedAt      *time.Time
	CancelReason string

	// StartsAt and EndsAt are the time of an appointment, nil for a queued
	// booking. A visit that ends early ends the appointment.
	StartsAt *time.Time
	EndsAt   *time.Time
	// BusyFrom and BusyUntil are what an appointment takes of its resource's time with
	// its buffers; nil where it has none.
	BusyFrom, BusyUntil *time.Time
	// ReservedUntil is when a temporary appointment is deleted unless it is confirmed;
	// nil for others.
	ReservedUntil *time.Time
	// OriginID is the id of the first booking of a visit that was rescheduled, and
	// OriginVersion the sum of the versions of all bookings before this one. They are
	// empty and 0 for a booking that replaces none.
	OriginID      string
	OriginVersion int64
	// Adjusters are the values of the fields that change the length and the price.
	Adjusters Fields `gorm:"serializer:json"`
	// UndoAction is the last action of staff, which they may undo until UndoUntil. They
	// are empty and nil if there is none. The booking then goes back to UndoStatus and
	// UndoStage, and an appointment to its end at UndoEndsAt.
	UndoAction Action
	UndoUntil  *time.Time
	UndoStatus Status
	UndoStage  Stage
	UndoEndsAt *time.Time
	// ReminderNext is the reminder of an appointment that is due at ReminderAt;
	// empty and nil when none is left.
	ReminderNext Reminder
	ReminderAt   *time.Time
}

// Name returns the visitor's name: the booking's own, else its customer's.
func (b *Booking) Name(c *Customer) (first, last string) {
	if b.FirstName != "" || b.LastName != "" {
		return b.FirstName, b.LastName
	}
	return c.FirstName, c.LastName
}

// Origin returns the id of the first booking of the visit. It stays the same when the
// visit is rescheduled.
func (b *Booking) Origin() string { return cmp.Or(b.OriginID, b.ID) }

// Revision grows with every change of the visit, also when it is rescheduled.
func (b *Booking) Revision() int64 { return b.OriginVersion + b.Version }

// WasEarly reports whether the visit of an appointment is over and had begun before
// its planned time. StartedAt and EndedAt are its times then: its planned end is
// not before its planned beginning, however early the visit ended.
func (b *Booking) WasEarly() bool {
	return b.StartsAt != nil && b.StartedAt != nil && b.EndedAt != nil && b.StartedAt.Before(*b.StartsAt)
}

// Waiting reports whether the booking stands in a queue.
func (b *Booking) Waiting() bool {
	return b.Status == StatusPendingAssignment && b.Stage == StageWaiting
}

// Estimate is a wait in minutes: optimistic, likely and pessimistic.
type Estimate struct {
	Low    int `json:"low"`
	Likely int `json:"likely"`
	High   int `json:"high"`
}
