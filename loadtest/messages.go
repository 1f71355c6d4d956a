package loadtest

// bookingDTO is the part of a booking the scenarios look at.
type bookingDTO struct {
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

// typeDTO is the part of a booking type the scenarios look at.
type typeDTO struct {
	ID      string `json:"id"`
	Minutes int    `json:"minutes"`
}

// identified is any object of which only the id matters.
type identified struct {
	ID string `json:"id"`
}

// enveloped is how most answers come: {"result": …}.
type enveloped[T any] struct {
	Result T `json:"result"`
}

// snapshotDTO is the data of a subscribe reply.
type snapshotDTO struct {
	Type    string     `json:"type"`
	Booking bookingDTO `json:"booking"`
}

// publicationDTO holds the fields of every publication of a booking's channel.
type publicationDTO struct {
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
