package client

// Booking has the fields of a booking that the scenarios use.
type Booking struct {
	ID                   string `json:"id"`
	Status               string `json:"status"`
	Stage                string `json:"stage"`
	Ticket               string `json:"ticket"`
	ResourceID           string `json:"resourceId"`
	QueuePosition        *int   `json:"queuePosition"`
	EstimatedWaitMinutes *int   `json:"estimatedWaitMinutes"`
	TicketToken          string `json:"ticketToken"`
	RecallCount          int    `json:"recallCount"`
}

// BookingType has the fields of a booking type that the scenarios use.
type BookingType struct {
	ID      string `json:"id"`
	Minutes int    `json:"minutes"`
}

// Created is a response of which only the ID is used.
type Created struct {
	ID string `json:"id"`
}

// Envelope is the form of most responses: {"result": …}.
type Envelope[T any] struct {
	Result T `json:"result"`
}

// Snapshot is the data of a subscribe reply.
type Snapshot struct {
	Type    string  `json:"type"`
	Booking Booking `json:"booking"`
}

// Publication has the fields of all publications in a booking's channel.
type Publication struct {
	Via                  string `json:"via"`
	Type                 string `json:"type"`
	BookingID            string `json:"bookingId"`
	BookingStatus        string `json:"bookingStatus"`
	Stage                string `json:"stage"`
	ResourceID           string `json:"resourceId"`
	Ticket               string `json:"ticket"`
	QueuePosition        *int   `json:"queuePosition"`
	EstimatedWaitMinutes *int   `json:"estimatedWaitMinutes"`
	RecallCount          int    `json:"recallCount"`
}
