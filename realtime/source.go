package realtime

import (
	"context"
	"encoding/json"
	"time"

	"nowserving/models"
)

// Source authenticates clients, checks what they may watch, and reads the database.
// handlers implements it. Its methods are called concurrently, never while a lock of
// the hub is held.
type Source interface {
	// Authenticate turns a token (an access JWT, an API key, a ticket token or a
	// display token) into a Client. address is the network address of the client. A
	// *models.Error with CodeTokenExpired asks the client for a newer token. After one
	// with CodeUnavailable, CodeTooManyRequests or CodeInternal, and after an error
	// without a code, the client tries again. After any other it gives up.
	Authenticate(ctx context.Context, token, address string) (Client, error)

	// OriginAllowed reports whether pages of a foreign origin may connect for an
	// organization or, where that is not known yet and so empty, for any.
	OriginAllowed(ctx context.Context, organizationID, origin string) (bool, error)

	// Booking, Queue and Display check that the client may watch something and return
	// its state, read after the call began. Errors are handled like those of
	// Authenticate.
	Booking(ctx context.Context, c Client, bookingID string) (BookingSnapshot, error)
	Queue(ctx context.Context, c Client, resourceID string) (QueueSnapshot, error)
	Display(ctx context.Context, c Client, displayID string) (DisplaySnapshot, error)

	// States returns the present state of bookings (models.StateEvent of each that
	// exists, in any order) for clients that may have missed a change: one database
	// read, at most 1,000 ids a call.
	States(ctx context.Context, organizationID string, bookingIDs []string) ([]models.BookingEvent, error)

	// Calls returns the state of an organization's bookings that are being served or
	// were called last, at most 50, the last called first. It is one database read of
	// bookings with a resource and a call time. Errors are logged, and the question
	// is asked again.
	Calls(ctx context.Context, organizationID string) ([]models.BookingEvent, error)

	// Catalogue returns the names and durations of an organization. It is called
	// often, so it answers from memory unless fresh is set: then the catalogue may
	// have just changed. The maps must not be modified.
	Catalogue(ctx context.Context, organizationID string, fresh bool) (Catalogue, error)
}

// Client is an authenticated client.
type Client struct {
	// OrganizationID is empty for a credential of several organizations.
	OrganizationID string
	// UserID is the id of the customer, member, API key, ticket or display. A
	// refreshed token must have the same one.
	UserID string
	// CredentialID is the id that Revoke takes: the session of a person, otherwise
	// the same as UserID.
	CredentialID string
	// Patient is the id of the customer or ticket whose connections are bounded. It
	// is empty for other clients.
	Patient string
	// ExpiresAt is when the token expires. Zero means never.
	ExpiresAt time.Time
	// Opaque is the source's own principal. The hub passes it back unchanged.
	Opaque any
}

// BookingSnapshot is the state of a booking for a new watcher.
type BookingSnapshot struct {
	OrganizationID string
	Version        int64
	Stage          models.Stage
	// TypeID and ResourceID are its type and, once assigned, its resource.
	TypeID, ResourceID string
	// Own reports whether the watcher is the booking's customer.
	Own bool
	// Minutes is the duration of its type, which the wait is computed from.
	Minutes int
	// Position is the source's position, or 0 if the booking does not wait. The hub
	// prefers that of a fresh mirror that has the booking.
	Position int
	// Data renders {"type":"SNAPSHOT","booking":…,"at":…} with the given
	// queuePosition (0: none) and the waits that follow from it. It is called
	// once, soon, from the goroutine that asked for the snapshot.
	Data func(position int) (json.RawMessage, error)
}

// QueueSnapshot is a resource's waiting list.
type QueueSnapshot struct {
	OrganizationID string
	// Data is {"type":"SNAPSHOT","resourceId":…,"paused":…,"waiting":[…],"total":…,"at":…}.
	Data json.RawMessage
}

// DisplaySnapshot lists the resources that a display shows. The hub adds the rest.
type DisplaySnapshot struct {
	OrganizationID string
	// ResourceIDs are the resources it shows. Empty means all.
	ResourceIDs []string
}

// Catalogue holds the names and durations in publications.
type Catalogue struct {
	Resources map[string]Resource // by id
	Types     map[string]Type     // by id
	// Read is when the source read it. Two with the same time are equal.
	Read time.Time
}

// Type is the part of a booking type that publications carry.
type Type struct {
	Name         string
	Translations models.Translation
	Minutes      int // of a visit: what a place in the queue is worth
}

// Resource is the part of a resource that publications carry.
type Resource struct {
	Name         string
	Translations models.Translation
}
