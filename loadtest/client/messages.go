package client

// Booking is the part of a booking the scenarios look at.
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

// BookingType is the part of a booking type the scenarios look at.
type BookingType struct {
	ID      string `json:"id"`
	Minutes int    `json:"minutes"`
}

// Created is any object of which only the id matters.
type Created struct {
	ID string `json:"id"`
}

// Envelope is how most answers come: {"result": …}.
type Envelope[T any] struct {
	Result T `json:"result"`
}

// Snapshot is the data of a subscribe reply.
type Snapshot struct {
	Type    string  `json:"type"`
	Booking Booking `json:"booking"`
}

// Publication holds the fields of every publication of a booking's channel.
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
