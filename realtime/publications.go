package realtime

import "nowserving/models"

// Publication is the beginning of every publication's data.
type Publication struct {
	Via  string           `json:"via" enum:"scheduling-system"`
	Type models.EventType `json:"type"`
}

func publication(t models.EventType) Publication { return Publication{models.Via, t} }

// positionUpdated documents the data that appendPosition writes.
type positionUpdated struct {
	Publication
	BookingID            string   `json:"bookingId"`
	QueuePosition        int      `json:"queuePosition" doc:"1 is the next to be served."`
	EstimatedWaitMinutes int      `json:"estimatedWaitMinutes" doc:"queuePosition times the minutes of the type."`
	QueuePositionAge     *float64 `json:"queuePositionAgeSeconds,omitempty" doc:"How old queuePosition may be, while the service can't follow the queue as it moves; absent while it is live."`
}

type bookingAssigned struct {
	Publication
	BookingID    string        `json:"bookingId"`
	Status       models.Status `json:"bookingStatus" enum:"PENDING_APPROVAL,PENDING_PAYMENT,PENDING_ASSIGNMENT,CONFIRMED,CANCELED,REJECTED"`
	ResourceID   string        `json:"resourceId"`
	ResourceName string        `json:"resourceName,omitempty"`
	Ticket       string        `json:"ticket,omitempty"`
}

type bookingCalled struct {
	Publication
	BookingID    string `json:"bookingId"`
	ResourceID   string `json:"resourceId"`
	ResourceName string `json:"resourceName,omitempty"`
	Ticket       string `json:"ticket,omitempty"`
	RecallCount  int    `json:"recallCount"`
}

type bookingClosed struct {
	Publication
	BookingID string        `json:"bookingId"`
	Status    models.Status `json:"bookingStatus" enum:"PENDING_APPROVAL,PENDING_PAYMENT,PENDING_ASSIGNMENT,CONFIRMED,CANCELED,REJECTED"`
}

type bookingUpdated struct {
	Publication
	BookingID string        `json:"bookingId"`
	Status    models.Status `json:"bookingStatus,omitempty" enum:"PENDING_APPROVAL,PENDING_PAYMENT,PENDING_ASSIGNMENT,CONFIRMED,CANCELED,REJECTED"`
	Stage     models.Stage  `json:"stage,omitempty" enum:"WAITING,HELD,CALLED,SERVING,DONE,NO_SHOW,LEFT"`

	BookingType *typeNews     `json:"bookingType,omitempty" doc:"When the type was changed, and not the booking."`
	Resource    *resourceNews `json:"resource,omitempty" doc:"When the resource was changed that has taken the booking."`
}

// typeNews and resourceNews are the parts of BOOKING_UPDATED that carry a changed type
// or resource.
type typeNews struct {
	ID           string             `json:"id"`
	Name         string             `json:"name"`
	Translations models.Translation `json:"name_translations"`
	Minutes      int                `json:"minutes"`
}

type resourceNews struct {
	ID           string             `json:"id"`
	Name         string             `json:"name"`
	Translations models.Translation `json:"name_translations"`
}

type bookingPending struct {
	Publication
	BookingID  string `json:"bookingId"`
	ResourceID string `json:"resourceId"`
}

type queueUpdated struct {
	Publication
	BookingID  string       `json:"bookingId,omitempty"`
	Stage      models.Stage `json:"stage,omitempty" enum:"WAITING,HELD,CALLED,SERVING,DONE,NO_SHOW,LEFT"`
	ResourceID string       `json:"resourceId"`
	Ticket     string       `json:"ticket,omitempty"`
	Waiting    int          `json:"waiting" doc:"How many wait."`
	At         string       `json:"at" format:"date-time"`
}

type nowServing struct {
	Publication
	Call call `json:"call"`
}

// call is a called ticket on a display.
type call struct {
	Ticket       string             `json:"ticket"`
	ResourceID   string             `json:"resourceId"`
	ResourceName string             `json:"resourceName"`
	Translations models.Translation `json:"resourceName_translations"`
	CalledAt     string             `json:"calledAt" format:"date-time"`
	Stage        models.Stage       `json:"stage" enum:"WAITING,HELD,CALLED,SERVING,DONE,NO_SHOW,LEFT"`
	RecallCount  int                `json:"recallCount"`
}

// Screen is the state of a display.
type Screen struct {
	NowServing []call   `json:"nowServing" nullable:"false"`
	LastCalled []call   `json:"lastCalled" nullable:"false" doc:"The newest first."`
	Next       []string `json:"next" nullable:"false" doc:"The tickets that are called next."`
	Waiting    int      `json:"waiting" doc:"How many wait."`
}

// displaySnapshot and displayUpdated document the data that withTime makes.
type displaySnapshot struct {
	Type models.EventType `json:"type"`
	Screen
	At string `json:"at" format:"date-time"`
}

type displayUpdated struct {
	Publication
	Screen
	At string `json:"at" format:"date-time"`
}
