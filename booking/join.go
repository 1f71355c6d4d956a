package booking

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/fields"
	"nowserving/booking/files"
	"nowserving/booking/store"
	"nowserving/models"
)

// paymentTimeout is how long an unpaid booking is kept.
const paymentTimeout = 30 * time.Minute

// Filters limit which resources a booking matches.
type Filters struct {
	Resources []string // ids; empty: any
	Category  string   // empty: any

	narrow fields.Narrow // by custom fields
}

// maxFilterResources bounds Filters.Resources.
const maxFilterResources = 100

// Join is a request for a queued booking, by a customer or by the desk.
type Join struct {
	// CustomerID is set if customers join by themselves.
	CustomerID string
	// Customer, if CustomerID is empty, finds or creates the customer in the
	// transaction that creates the booking.
	Customer func(tx *store.Tx) (*models.Customer, error)
	// FirstName and LastName name the visitor. Default: the customer's name.
	FirstName, LastName string
	TypeID              string
	Priority            int
	// Timeout is the assignment timeout in minutes. It is clamped, and a fraction is
	// dropped. Default: the type's.
	Timeout *float64
	Filters Filters
	// Offered allows only what patients can book themselves: types and
	// resources with bookFromWebsite.
	Offered bool
	Note    string
	// Info, Adjusters and FilterFields are values of custom fields: information, what
	// changes the length and the price, and what resources are filtered by.
	Info, Adjusters, FilterFields models.Fields
	// Patient reports that a patient gives these values, not the desk.
	Patient bool
	// Extra is how many minutes the adjusters add to an appointment. It is computed.
	Extra int
	// TicketHash is the hash of the ticket's token. It is empty if there is none.
	TicketHash string
	// By is the customer or the desk.
	By models.Actor
}

// Join makes a queued booking and returns its place. The estimate is stored with the
// booking soon after, so that it can be compared with the real wait. A booking without
// a price waits at once; one whose type has a price and can be paid online waits for
// the payment first (Instant Booking, "Payment Integration").
func (s *Service) Join(ctx context.Context, organizationID string, j Join) (*models.Booking, *Place, error) {
	b, err := s.create(ctx, organizationID, j)
	if err != nil || !b.Waiting() {
		return b, nil, err
	}
	place := s.placeAfter(ctx, b, s.publish(ctx, b, models.EventNewPending))
	if place != nil {
		told := place.Position
		if j.CustomerID == "" {
			told = 0 // the desk asked
		}
		s.quotes.add(b.ID, told, place.Position, place.Estimate)
	}
	return b, place, nil
}

// create makes a queued booking.
func (s *Service) create(ctx context.Context, organizationID string, j Join) (*models.Booking, error) {
	b, t, zone, err := s.outline(ctx, organizationID, j)
	if err != nil {
		return nil, err
	}
	a, err := evaluate(s.store.Read(ctx), organizationID, j.values(), question{typeID: t.ID, required: j.Patient})
	if err != nil {
		return nil, err
	}
	j.answer(a, b)
	var uploads *files.Batch
	if b.Info, uploads, err = s.upload(ctx, organizationID, b.Info); err != nil {
		return nil, err
	}
	b.Status, b.Stage = models.StatusPendingAssignment, models.StageWaiting
	err = s.store.Tx(ctx, func(tx *store.Tx) error {
		if b.CustomerID == "" {
			if err := j.resolve(tx, b); err != nil {
				return err
			}
		}
		allowed, limited, err := j.Filters.narrowed(tx.DB, organizationID, t.ID)
		if err != nil {
			return err
		}
		b.FilterCategory, b.FilterResources = j.Filters.Category, limited
		b.CreatedAt, b.UpdatedAt = tx.Now, tx.Now
		if needsPayment(t) {
			deadline := tx.Now.Add(paymentTimeout)
			b.Status, b.Stage, b.PaymentDeadline = models.StatusPendingPayment, models.StageNone, &deadline
		} else {
			deadline := tx.Now.Add(time.Duration(b.AssignmentTimeout) * time.Minute)
			b.PendingAt, b.AssignmentDeadline = &tx.Now, &deadline
		}
		b.LocalDay = tx.Now.In(zone).Format(time.DateOnly)
		if err := drawTicket(tx, b, t.Prefix); err != nil {
			return err
		}
		if err := insert(tx.DB, b); err != nil {
			return fmt.Errorf("create booking: %w", err)
		}
		if err := uploads.Save(tx, b.CustomerID, b.ID); err != nil {
			return err
		}
		for _, id := range allowed {
			if err := tx.Exec("INSERT INTO booking_filter_resources (booking_seq, resource_id) VALUES (?, ?)", b.Seq, id).Error; err != nil {
				return fmt.Errorf("store resource filters: %w", err)
			}
		}
		serves, err := matchingResources(tx.DB, b.Seq)
		if err != nil {
			return err
		}
		if len(serves) == 0 {
			return models.Errorf(models.CodeNobodyServes, "No active resource that the booking may have serves %s.", t.Name)
		}
		if !b.Waiting() {
			// No event is emitted before the payment.
			return tx.Audit(organizationID, string(models.ActionJoin), "booking", b.ID)
		}
		event := models.EventOf(models.EventNewPending, b)
		event.Action, event.By = models.ActionJoin, j.By
		return tx.Emit(organizationID, event)
	})
	if err != nil {
		uploads.Discard(ctx)
		return nil, err
	}
	return b, nil
}

// resolve finds the customer of a booking. The booking keeps its own name only if it
// differs from the customer's: several people may share a phone.
func (j Join) resolve(tx *store.Tx, b *models.Booking) error {
	c, err := j.Customer(tx)
	if err != nil {
		return err
	}
	b.CustomerID = c.ID
	if j.FirstName == c.FirstName && j.LastName == c.LastName {
		b.FirstName, b.LastName = "", ""
	}
	return nil
}

// insert stores a new booking. Its customer may have been erased since they, or
// the desk for them, asked.
func insert(db *gorm.DB, b *models.Booking) error {
	err := db.Create(b).Error
	if store.IsErased(err) {
		return errErased
	}
	if err != nil {
		return err
	}
	// Its type can't be deleted from now on, but may have been since it was read.
	return typeIsLeft(db, b.TypeID)
}

// typeIsLeft fails with CodeTypeMissing where a type has been deleted.
func typeIsLeft(db *gorm.DB, id string) error {
	var left int64
	err := db.Table("booking_types").Where("id = ? AND deleted_at IS NULL", id).Count(&left).Error
	if err != nil {
		return fmt.Errorf("look for a booking type: %w", err)
	}
	if left == 0 {
		return models.Errorf(models.CodeTypeMissing, "There is no such booking type in the organization.")
	}
	return nil
}

// errErased is returned for a booking of an erased customer, which can neither be
// made nor changed.
var errErased = models.Errorf(models.CodeCustomerMissing, "The customer has been erased.")

// outline validates j and returns the part of the booking that queued bookings and
// appointments have in common, with its type and the organization's time zone.
func (s *Service) outline(ctx context.Context, organizationID string, j Join) (*models.Booking, *models.BookingType, *time.Location, error) {
	if j.Priority < models.MinPriority || j.Priority > models.MaxPriority {
		return nil, nil, nil, models.Invalid("priority", "A priority is %d to %d.", models.MinPriority, models.MaxPriority)
	}
	if err := models.CheckNames("", j.FirstName, j.LastName); err != nil {
		return nil, nil, nil, err
	}
	if len(j.Filters.Resources) > maxFilterResources {
		return nil, nil, nil, models.Invalid("resourceFilters", "At most %d resources can be named.", maxFilterResources)
	}
	organization, err := s.catalog.Organization(ctx, organizationID)
	if err != nil {
		return nil, nil, nil, err
	}
	zone, err := time.LoadLocation(organization.Timezone)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("time zone of organization %s: %w", organizationID, err)
	}
	t, err := s.catalog.Type(ctx, organizationID, j.TypeID)
	if err != nil {
		return nil, nil, nil, err
	}
	if !t.On {
		return nil, nil, nil, models.Errorf(models.CodeTypeOff, "The booking type is switched off.")
	}
	if j.Offered && !t.BookFromWebsite {
		return nil, nil, nil, models.Errorf(models.CodeNotOffered, "Patients can't book %s themselves.", t.Name)
	}
	for _, id := range j.Filters.Resources {
		r, err := s.catalog.Resource(ctx, organizationID, id)
		if err != nil {
			return nil, nil, nil, err
		}
		if j.Offered && !r.BookFromWebsite {
			return nil, nil, nil, models.Errorf(models.CodeNotOffered, "Patients can't book %s themselves.", r.Name)
		}
	}
	var ticketHash *string
	if j.TicketHash != "" {
		ticketHash = &j.TicketHash
	}
	return &models.Booking{
		TicketHash: ticketHash, ID: models.NewID(), OrganizationID: organizationID, CustomerID: j.CustomerID, TypeID: t.ID,
		FirstName: j.FirstName, LastName: j.LastName,
		Priority: j.Priority, Version: 1, Note: j.Note, AssignmentTimeout: timeout(t, j.Timeout),
	}, t, zone, nil
}

// timeout is the assignment timeout of a booking that asks for one, or for none.
func timeout(t *models.BookingType, asked *float64) int {
	if asked == nil {
		return models.ClampTimeout(float64(t.QueueTimeoutMinutes))
	}
	return models.ClampTimeout(*asked)
}

// needsPayment reports whether the type has a price and a way to pay online;
// "manual" is paid at the desk.
func needsPayment(t *models.BookingType) bool {
	price, err := strconv.ParseFloat(t.Price, 64)
	if err != nil || price <= 0 {
		return false
	}
	return slices.ContainsFunc(t.PaymentMethods, func(m string) bool { return m != "manual" })
}

// drawTicket gives the booking the next number of its prefix on its local day,
// past those that are still in use from another day. The counter's row stays
// locked until the commit, so tickets of a type are in the order of their join
// sequences.
func drawTicket(tx *store.Tx, b *models.Booking, prefix string) error {
	var n int
	err := tx.Raw(`INSERT INTO ticket_counters (organization_id, local_day, prefix, last_number) VALUES (?, ?, ?, 1)
		ON CONFLICT (organization_id, local_day, prefix) DO UPDATE SET last_number = ticket_counters.last_number + 1
		RETURNING last_number`, b.OrganizationID, b.LocalDay, prefix).Row().Scan(&n)
	if err != nil {
		return fmt.Errorf("draw a ticket: %w", err)
	}
	b.Ticket = ticketOf(prefix, n)
	if b.StartsAt != nil { // of another day, mostly; who is here then, is not known
		return nil
	}
	var inUse []string
	const here = "SELECT ticket FROM bookings WHERE organization_id = ? AND stage IN ('WAITING', 'HELD', 'CALLED', 'SERVING') AND local_day "
	err = tx.Raw(here+"< ? UNION ALL "+here+"> ?", b.OrganizationID, b.LocalDay, b.OrganizationID, b.LocalDay).Scan(&inUse).Error
	if err != nil {
		return fmt.Errorf("look for tickets in use: %w", err)
	}
	if !slices.Contains(inUse, b.Ticket) {
		return nil
	}
	for slices.Contains(inUse, ticketOf(prefix, n)) {
		n++
	}
	b.Ticket = ticketOf(prefix, n)
	err = tx.Exec("UPDATE ticket_counters SET last_number = ? WHERE organization_id = ? AND local_day = ? AND prefix = ?",
		n, b.OrganizationID, b.LocalDay, prefix).Error
	if err != nil {
		return fmt.Errorf("draw a ticket: %w", err)
	}
	return nil
}

func ticketOf(prefix string, n int) string { return fmt.Sprintf("%s%03d", prefix, n) }
