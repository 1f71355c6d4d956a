package booking

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// maxAhead is how far ahead an appointment may be: a date beyond is a slip
	// of the hand.
	maxAhead = 5 * 365 * 24 * time.Hour
	// maxCandidates bounds the resources that are asked for one appointment.
	maxCandidates = 500
)

// Appointment is a request for a visit at a date and a time.
type Appointment struct {
	// Join has the customer, the type and the filters. Its timeout is ignored.
	Join
	// Date and Time are the start in the organization's time zone: a day such as
	// 2023-01-11, and military time such as 1820 for twenty past six.
	Date string
	Time int
	// Replaces is the id of the booking that is rescheduled, if any. The customer
	// stays the same; so do the note, the info and, if it is free, the resource,
	// unless others are given.
	Replaces string
}

// Schedule makes an appointment, confirmed at once, with a resource that is
// free for all of it. A booking that it replaces is canceled in the same
// transaction (the document's chapter on scheduling). It is refused with
// SCH-SLOT_TAKEN when no resource is free and with SCH-PAST when it would
// begin in the past.
func (s *Service) Schedule(ctx context.Context, sc Scope, a Appointment) (*models.Booking, error) {
	b, t, zone, err := s.outline(ctx, sc.OrganizationID, a.Join)
	if err != nil {
		return nil, err
	}
	starts, err := localTime(a.Date, a.Time, zone)
	if err != nil {
		return nil, err
	}
	ends := starts.Add(time.Duration(t.Minutes) * time.Minute)
	b.Status, b.StartsAt, b.EndsAt, b.LocalDay = models.StatusConfirmed, &starts, &ends, a.Date
	event, action := models.EventScheduled, models.ActionSchedule
	var replaced *models.Booking
	err = s.store.Tx(ctx, func(tx *store.Tx) error {
		switch {
		case starts.Before(tx.Now):
			return models.Errorf(models.CodePast, "%s has passed.", starts.In(zone).Format("2006-01-02 15:04"))
		case starts.After(tx.Now.Add(maxAhead)):
			return models.Invalid("date", "An appointment is at most five years ahead.")
		}
		// One at a time in an organization: concurrent appointments would otherwise
		// deadlock on each other's rows.
		var id string
		if err := s.store.Lock(tx).Table("organizations").Where("id = ?", sc.OrganizationID).Pluck("id", &id).Error; err != nil {
			return fmt.Errorf("lock the organization: %w", err)
		}
		if a.Replaces != "" {
			event, action = models.EventRescheduled, models.ActionReschedule
			if replaced, err = s.replace(tx, sc, a.Replaces, b); err != nil {
				return err
			}
		}
		if err := a.whose(tx, b, replaced); err != nil {
			return err
		}
		b.CreatedAt, b.UpdatedAt = tx.Now, tx.Now
		scheduleReminders(b, tx.Now)
		if err := drawTicket(tx, b, t.Prefix); err != nil {
			return err
		}
		if err := s.book(tx, sc, a.Join, b, replaced); err != nil {
			return err
		}
		e := models.EventOf(event, b)
		e.Action, e.By, e.RescheduledFrom = action, sc.Actor(), a.Replaces
		return tx.Emit(b.OrganizationID, e)
	})
	if err != nil {
		return nil, err
	}
	if replaced != nil {
		s.publish(ctx, replaced, models.EventCanceled)
	}
	return b, nil
}

// localTime is the moment a zone's clock shows a day and a military time, the
// first one where it shows them twice. A time that the clock leaps over does
// not exist.
func localTime(date string, military int, zone *time.Location) (time.Time, error) {
	day, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return time.Time{}, models.Invalid("date", "Give a day such as 2023-01-11.")
	}
	hour, minute := military/100, military%100
	if military < 0 || hour > 23 || minute > 59 {
		return time.Time{}, models.Invalid("time", "Give a military time, 0 to 2359, such as 1820 for 18:20.")
	}
	t := time.Date(day.Year(), day.Month(), day.Day(), hour, minute, 0, 0, zone)
	if t.Hour() != hour || t.Minute() != minute {
		return time.Time{}, models.Invalid("time", "The clocks in %s leap over %s on that day.", zone, fmt.Sprintf("%02d:%02d", hour, minute))
	}
	if change, _ := t.ZoneBounds(); !change.IsZero() {
		// Before the clocks were set back they may have shown the same.
		_, before := change.Add(-time.Second).Zone()
		_, after := t.Zone()
		if earlier := t.Add(time.Duration(after-before) * time.Second); earlier.Before(change) && before > after {
			t = earlier
		}
	}
	return t.UTC(), nil
}

// replace cancels the booking with an id because b takes its place.
func (s *Service) replace(tx *store.Tx, sc Scope, id string, b *models.Booking) (*models.Booking, error) {
	where := sc.limit(tx.Where("organization_id = ? AND id = ?", sc.OrganizationID, id))
	old, err := s.move(tx, where, models.ActionCancel, map[string]any{"ended_at": tx.Now})
	if errors.Is(err, errLost) {
		return nil, s.whyNot(tx, id, sc, models.ActionCancel)
	}
	if err != nil {
		return nil, err
	}
	if b.Note == "" {
		b.Note = old.Note
	}
	if b.Info == nil {
		b.Info = old.Info
	}
	if b.FirstName == "" && b.LastName == "" {
		b.FirstName, b.LastName = old.FirstName, old.LastName
	}
	e := models.EventOf(models.EventCanceled, old)
	e.Action, e.By, e.RescheduledTo = models.ActionCancel, sc.Actor(), b.ID
	return old, tx.Emit(old.OrganizationID, e)
}

// whose finds the customer of an appointment, which a new time does not change.
func (a Appointment) whose(tx *store.Tx, b, replaced *models.Booking) error {
	if b.CustomerID == "" && a.Customer != nil {
		if err := a.resolve(tx, b); err != nil {
			return err
		}
	}
	if replaced == nil {
		return nil
	}
	if b.CustomerID != "" && b.CustomerID != replaced.CustomerID {
		return models.Invalid("customerIdentifier", "The booking to reschedule is another customer's.")
	}
	b.CustomerID = replaced.CustomerID
	return nil
}

// book stores an appointment with the first of its resources that is free. The
// database alone says which is, by refusing two appointments at a time.
func (s *Service) book(tx *store.Tx, sc Scope, j Join, b, replaced *models.Booking) error {
	candidates, err := candidates(tx, sc, j, b, replaced)
	if err != nil {
		return err
	}
	for _, id := range candidates {
		b.ResourceID = &id
		err := tx.Transaction(func(tx *gorm.DB) error { return insert(tx, b) })
		switch {
		case err == nil:
			return nil
		case !store.IsOverlap(err):
			return fmt.Errorf("create appointment: %w", err)
		}
	}
	return models.Errorf(models.CodeSlotTaken, "Nobody who may serve this is free at that time.")
}

// candidates lists the active resources that could serve an appointment, the
// one of the booking it replaces first.
func candidates(tx *store.Tx, sc Scope, j Join, b, replaced *models.Booking) ([]string, error) {
	f := j.Filters
	if len(f.Resources) == 1 {
		if !sc.serves(f.Resources[0]) {
			return nil, forbiddenResource()
		}
		if _, err := activeResource(tx, b.OrganizationID, f.Resources[0]); err != nil {
			return nil, err
		}
	}
	q := tx.Table("resources AS r").Where("r.organization_id = ? AND r.is_on AND r.activated AND r.deleted_at IS NULL", b.OrganizationID).
		Where("EXISTS (SELECT 1 FROM resource_types rt WHERE rt.resource_id = r.id AND rt.type_id = ?)", b.TypeID)
	if len(f.Resources) > 0 {
		q = q.Where("r.id IN ?", f.Resources)
	}
	if f.Category != "" {
		q = q.Where("r.category = ?", f.Category)
	}
	first := ""
	if replaced != nil && replaced.ResourceID != nil {
		first = *replaced.ResourceID
	}
	if j.Offered { // a rescheduled appointment keeps the resource that the desk chose
		q = q.Where("r.book_from_website OR r.id = ?", first)
	}
	if sc.Provider {
		q = q.Where("r.id IN ?", append([]string{""}, sc.Resources...))
	}
	var ids []string
	err := q.Order(clause.OrderBy{Expression: gorm.Expr("CASE r.id WHEN ? THEN 0 ELSE 1 END, r.id", first)}).Limit(maxCandidates).Pluck("r.id", &ids).Error
	if err != nil {
		return nil, fmt.Errorf("find resources for an appointment: %w", err)
	}
	if len(ids) == 0 {
		return nil, models.Errorf(models.CodeTypeMismatch, "No active resource that you may choose serves this type.")
	}
	return ids, nil
}
