package models

import "time"

// EventType is the type of an event, as phones and live connections get it.
type EventType string

// The types of events and publications.
const (
	EventNewPending      EventType = "NEW_PENDING_UNASSIGNED_BOOKING"
	EventPositionUpdated EventType = "QUEUE_POSITION_UPDATED"
	EventAssigned        EventType = "MY_BOOKING_ASSIGNED"
	EventCalled          EventType = "MY_BOOKING_CALLED"
	EventExpired         EventType = "MY_BOOKING_EXPIRED"
	EventCanceled        EventType = "MY_BOOKING_CANCELED"
	EventEnded           EventType = "MY_BOOKING_ENDED"
	EventUpdated         EventType = "BOOKING_UPDATED"
	EventQueueUpdated    EventType = "QUEUE_UPDATED"
	EventNowServing      EventType = "NOW_SERVING"
	EventDisplayUpdated  EventType = "DISPLAY_UPDATED"
	EventSnapshot        EventType = "SNAPSHOT"
	// Of appointments, and of phones only.
	EventScheduled   EventType = "MY_BOOKING_SCHEDULED"
	EventConfirmed   EventType = "MY_BOOKING_CONFIRMED" // it was approved
	EventRejected    EventType = "MY_BOOKING_REJECTED"
	EventRescheduled EventType = "MY_BOOKING_RESCHEDULED"
	EventReminder    EventType = "MY_BOOKING_REMINDER"
	EventComeNow     EventType = "MY_BOOKING_COME_NOW"
)

// Actor is the kind of caller that made a change.
type Actor string

// The actors.
const (
	ActorCustomer Actor = "customer"
	ActorStaff    Actor = "staff"
	ActorSystem   Actor = "system" // a deadline that passed
)

// Via marks every payload that leaves the service, as the API document asks.
const Via = "scheduling-system"

// BookingEvent is what one change made of a booking. It is stored with the
// change, travels in the queue delta, and carries no name, phone or reason.
type BookingEvent struct {
	Type        EventType  `json:"type"`
	BookingID   string     `json:"bookingId"`
	Version     int64      `json:"version"`
	Status      Status     `json:"status"`
	Stage       Stage      `json:"stage"`
	Ticket      string     `json:"ticket"`
	TypeID      string     `json:"typeId"`
	ResourceID  string     `json:"resourceId,omitempty"`
	CalledAt    *time.Time `json:"calledAt,omitempty"`
	RecallCount int        `json:"recallCount,omitempty"`
	At          time.Time  `json:"at"`
	// Action is what was done, for the audit; empty if the audit does not record it
	// of later.
	Action Action `json:"-"`
	// Undone is the action that an undo reverted.
	Undone Action `json:"undone,omitempty"`
	// By is the actor, if the recipients of the event depend on it.
	By Actor `json:"by,omitempty"`
	// StartsAt is the beginning of an appointment.
	StartsAt *time.Time `json:"startsAt,omitempty"`
	// RescheduledFrom is the id of the booking an appointment replaces, and
	// RescheduledTo that of the one which replaces it.
	RescheduledFrom string `json:"rescheduledFrom,omitempty"`
	RescheduledTo   string `json:"rescheduledTo,omitempty"`
	// Reminder is the reminder that is due.
	Reminder Reminder `json:"reminder,omitempty"`
}

// Reminder names a reminder of an appointment as the API document names its
// webhook.
type Reminder string

// The reminders, in the order they are due.
const (
	ReminderDayBefore  Reminder = "oneDayBeforeAppointment"
	ReminderHourBefore Reminder = "oneHourBeforeAppointment"
	ReminderTenBefore  Reminder = "tenMinutesBeforeAppointment"
	ReminderAtStart    Reminder = "beforeAppointment"
	ReminderAfterEnd   Reminder = "afterAppointment"
	ReminderDayAfter   Reminder = "oneDayAfterAppointment"
)

// Standing is where a waiting booking stands.
type Standing struct {
	BookingID   string
	Version     int64
	TypeID      string
	Position    int
	WaitMinutes int // the document's formula
	Estimate    Estimate
}

// EventOf describes the state a booking is in after a change of type t.
func EventOf(t EventType, b *Booking) BookingEvent {
	e := BookingEvent{
		Type: t, BookingID: b.ID, Version: b.Version, Status: b.Status, Stage: b.Stage,
		Ticket: b.Ticket, TypeID: b.TypeID, CalledAt: b.LastCalledAt, RecallCount: b.RecallCount, At: b.UpdatedAt, StartsAt: b.StartsAt,
	}
	if b.ResourceID != nil {
		e.ResourceID = *b.ResourceID
	}
	return e
}

// StateEvent returns the event that describes the present state of a booking, for a
// client that may have missed earlier events.
func StateEvent(b *Booking) BookingEvent {
	t := EventUpdated
	switch {
	case b.Status == StatusCanceled:
		t = EventCanceled
	case b.Status == StatusRejected:
		t = EventExpired
	case b.Stage == StageCalled && b.RecallCount > 0:
		t = EventCalled
	case b.Stage == StageCalled:
		t = EventAssigned
	case b.Stage == StageDone || b.Stage == StageNoShow:
		t = EventEnded
	}
	return EventOf(t, b)
}
