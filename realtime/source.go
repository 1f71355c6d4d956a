package realtime

import (
	"context"
	"encoding/json"
	"time"

	"nowserving/models"
)

// Source answers what the hub can't know by itself: who is connecting, what
// may be watched, and what the database says. handlers implements it. Its
// methods are called concurrently, never under a lock of the hub.
type Source interface {
	// Authenticate turns a token (an access JWT, an API key, a ticket token or
	// a display token) into who is connecting. address is the network address of
	// the client. A *models.Error with
	// CodeTokenExpired asks the client for a newer token. After one with
	// CodeUnavailable, CodeTooManyRequests or CodeInternal, and after an error
	// without a code, the client tries again. After any other it gives up.
	Authenticate(ctx context.Context, token, address string) (Client, error)

	// OriginAllowed reports whether pages of a foreign origin may connect for an
	// organization or, where that is not known yet and so empty, for any.
	OriginAllowed(ctx context.Context, organizationID, origin string) (bool, error)

	// Booking, Queue and Display check that the client may watch something and
	// return its state, read after the call began. Errors are treated as those
	// of Authenticate.
	Booking(ctx context.Context, c Client, bookingID string) (BookingSnapshot, error)
	Queue(ctx context.Context, c Client, resourceID string) (QueueSnapshot, error)
	Display(ctx context.Context, c Client, displayID string) (DisplaySnapshot, error)

	// States returns what became of bookings (models.StateEvent of each that
	// exists, in any order) for clients that may have missed it: one database
	// read, at most 1,000 ids a call.
	States(ctx context.Context, organizationID string, bookingIDs []string) ([]models.BookingEvent, error)

	// Calls returns the state of the bookings of an organization that are being
	// served or were called last, at most 50, the last called first: one
	// database read of bookings with a resource and a call time.
	Calls(ctx context.Context, organizationID string) ([]models.BookingEvent, error)

	// Catalogue returns the names and durations an organization uses. It is asked
	// often, so it answers from memory, but for fresh: then it may have changed just
	// now. Its maps are not changed by either side.
	Catalogue(ctx context.Context, organizationID string, fresh bool) (Catalogue, error)
}

// Client is who is connecting.
type Client struct {
	// OrganizationID is empty for a credential that may act for several.
	OrganizationID string
	// UserID is whose credential it is: a customer, a member, an API key, a
	// ticket or a display. A refreshed token must have the same one.
	UserID string
	// CredentialID is what Revoke names: the session of a person who signed in,
	// else the same as UserID.
	CredentialID string
	// Patient names the customer or the ticket that has so many connections at
	// most; empty for those who work here.
	Patient string
	// ExpiresAt is when the token ends; zero means never.
	ExpiresAt time.Time
	// Opaque is the source's own principal; the hub hands it back untouched.
	Opaque any
}

// BookingSnapshot is a booking as its watcher sees it on subscribing.
type BookingSnapshot struct {
	OrganizationID string
	Version        int64
	Stage          models.Stage
	// TypeID and ResourceID are its type and, once assigned, its resource.
	TypeID, ResourceID string
	// Own says that it is the customer themselves who watches.
	Own bool
	// Minutes is the duration of its type: a place in the queue is worth so much.
	Minutes int
	// Position is its place as the source knows it, 0 when it does not wait. The
	// hub prefers the mirror's, when that is fresh and knows the booking.
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

// DisplaySnapshot says what a display shows; the hub builds the rest itself.
type DisplaySnapshot struct {
	OrganizationID string
	// ResourceIDs are the resources it shows; empty means all.
	ResourceIDs []string
}

// Catalogue is what publications say of resources and types.
type Catalogue struct {
	Resources map[string]Resource // by id
	Types     map[string]Type     // by id
	// Read is when the source read it: of two with the same, nothing differs.
	Read time.Time
}

// Type is the part of a booking type that publications carry.
type Type struct {
	Name         string
	Translations models.Translation
	Minutes      int // of a visit: what a place in the queue is worth
}

// Resource is what screens and phones are told of a resource.
type Resource struct {
	Name         string
	Translations models.Translation
}
