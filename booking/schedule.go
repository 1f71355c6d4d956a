package booking

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/calendar"
	"nowserving/booking/files"
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
	// stays the same; so do the note, the info, the adjusters and, if it is free, the
	// resource, unless others are given.
	Replaces string
	// LeastFirst chooses, of the resources that are free, the one with the fewest
	// appointments on that day.
	LeastFirst bool
	// Reserve makes a temporary appointment, which is deleted after this time unless
	// it is confirmed. 0: not temporary.
	Reserve time.Duration
}

// Schedule makes an appointment with a resource that is open and free for all of it. A
// booking that it replaces is canceled in the same transaction (the document's chapter
// on scheduling).
//
// What the desk makes is confirmed at once. What customers make waits for the payment if
// the type has a price and a way to pay online; else it is confirmed if the type says
// so, or waits for approval.
//
// It fails with SCH-SLOT_TAKEN and the next free times when no resource is free, with
// SCH-OUTSIDE_HOURS when none is open, with SCH-TOO_EARLY or SCH-TOO_LATE when it is
// booked too shortly or too long before, and with SCH-PAST.
func (s *Service) Schedule(ctx context.Context, sc Scope, a Appointment) (*models.Booking, error) {
	b, t, zone, err := s.outline(ctx, sc.OrganizationID, a.Join)
	if err != nil {
		return nil, err
	}
	starts, err := calendar.Moment(a.Date, a.Time, zone)
	if err != nil {
		return nil, err
	}
	b.StartsAt, b.LocalDay = &starts, a.Date
	// The custom fields are checked in the transaction, with those of a booking that is
	// rescheduled.
	var uploads *files.Batch
	if a.Info, uploads, err = s.upload(ctx, sc.OrganizationID, a.Info); err != nil {
		return nil, err
	}
	b.Info = a.Info
	var replaced *models.Booking
	err = s.store.Tx(ctx, func(tx *store.Tx) error {
		// One at a time in an organization: concurrent appointments would otherwise
		// deadlock on each other's rows.
		var id string
		if err := s.store.Lock(tx).Table("organizations").Where("id = ?", sc.OrganizationID).Pluck("id", &id).Error; err != nil {
			return fmt.Errorf("lock the organization: %w", err)
		}
		if a.Replaces != "" {
			if replaced, err = s.replace(tx, sc, a.Replaces, b, a.quiet(sc, t)); err != nil {
				return err
			}
		}
		values, err := evaluate(tx.DB, sc.OrganizationID, a.values(), question{typeID: t.ID, required: a.Reserve == 0, earlier: replaced})
		if err != nil {
			return err
		}
		a.answer(values, b)
		if err := a.whose(tx, b, replaced); err != nil {
			return err
		}
		if err := s.book(tx, sc, a, b, t, zone, replaced); err != nil {
			return err
		}
		if err := uploads.Save(tx, b.CustomerID, b.ID); err != nil {
			return err
		}
		return announce(tx, sc, a, b)
	})
	if err != nil {
		uploads.Discard(ctx)
		return nil, s.offerAlternatives(ctx, sc, a, b, zone, err)
	}
	if replaced != nil {
		s.publish(ctx, replaced, models.EventCanceled)
	}
	return b, nil
}

// quiet reports whether no event is emitted of the new appointment: there is none before
// the payment, and none of what may be deleted again without a trace.
func (a Appointment) quiet(sc Scope, t *models.BookingType) bool {
	return a.Reserve > 0 || sc.Actor() == models.ActorCustomer && needsPayment(t)
}

// announce emits the event of a new appointment, unless it is quiet.
func announce(tx *store.Tx, sc Scope, a Appointment, b *models.Booking) error {
	event, action := models.EventScheduled, models.ActionSchedule
	if a.Replaces != "" {
		action = models.ActionReschedule
		if b.Status != models.StatusPendingApproval { // it is a new request
			event = models.EventRescheduled
		}
	}
	if b.Status == models.StatusPendingPayment || b.ReservedUntil != nil {
		return tx.Audit(b.OrganizationID, string(action), "booking", b.ID)
	}
	e := models.EventOf(event, b)
	e.Action, e.By, e.RescheduledFrom = action, sc.Actor(), a.Replaces
	return tx.Emit(b.OrganizationID, e)
}

// offerAlternatives adds the next free times to the error of a time that is taken.
func (s *Service) offerAlternatives(ctx context.Context, sc Scope, a Appointment, b *models.Booking, zone *time.Location, err error) error {
	taken, ok := errors.AsType[*models.Error](err)
	if !ok || taken.Code != models.CodeSlotTaken {
		return err
	}
	free, unread := s.alternativesTo(ctx, sc, TimesQuery{
		TypeID: a.TypeID, Filters: a.Filters, extra: a.Extra, Offered: a.Offered, Reschedule: a.Replaces,
	}, *b.StartsAt, zone)
	if unread != nil {
		// The time is taken, whatever else is free.
		s.log.Warn("no alternatives to a time that is taken", "error", unread)
		return err
	}
	for _, t := range free {
		taken.Alternatives = append(taken.Alternatives, models.Alternative{
			Date: calendar.DayOf(t.Start, zone).String(), Time: t.Time,
			StartDateTime: models.At(t.Start), EndDateTime: models.At(t.End), Resources: t.ResourceIDs,
		})
	}
	return err
}

// replace cancels the booking with an id because b takes its place. If no event is
// emitted of b, that of the old booking tells of a cancellation.
func (s *Service) replace(tx *store.Tx, sc Scope, id string, b *models.Booking, quiet bool) (*models.Booking, error) {
	where := sc.limit(tx.Where("organization_id = ? AND id = ?", sc.OrganizationID, id))
	old, err := s.move(tx, where, models.ActionCancel, map[string]any{"ended_at": tx.Now})
	if errors.Is(err, errLost) {
		return nil, s.whyNot(tx, id, sc, models.ActionCancel)
	}
	if err != nil {
		return nil, err
	}
	b.OriginID, b.OriginVersion = old.Origin(), old.Revision()
	if b.Note == "" {
		b.Note = old.Note
	}
	if b.FirstName == "" && b.LastName == "" {
		b.FirstName, b.LastName = old.FirstName, old.LastName
	}
	e := models.EventOf(models.EventCanceled, old)
	e.Action, e.By = models.ActionCancel, sc.Actor()
	if !quiet {
		e.RescheduledTo = b.ID
	}
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

// book stores an appointment with the first of its resources that is open and free. Of
// which are free the database has the last word, by refusing two appointments at a time.
func (s *Service) book(
	tx *store.Tx, sc Scope, a Appointment, b *models.Booking, t *models.BookingType, zone *time.Location, replaced *models.Booking,
) error {
	first := ""
	if replaced != nil && replaced.ResourceID != nil {
		first = *replaced.ResourceID
	}
	resources, err := resourcesFor(tx.DB, sc, t.ID, a.Filters, a.Offered, first)
	if err != nil {
		return err
	}
	q, err := s.newSearch(tx.DB, t, zone, a.Extra, resources)
	if err != nil {
		return err
	}
	setTimes(b, q.Visit)
	if err := q.checkStart(tx.Now, b, a.Offered); err != nil {
		return err
	}
	setStatus(tx.Now, sc, a, b, t)
	b.CreatedAt, b.UpdatedAt = tx.Now, tx.Now
	if err := drawTicket(tx, b, t.Prefix); err != nil {
		return err
	}
	open := resources
	if a.Offered {
		if open, err = q.openAt(b); err != nil {
			return err
		}
	}
	if a.LeastFirst {
		if open, err = leastFirst(tx, b, open, first); err != nil {
			return err
		}
	}
	for _, id := range open {
		b.ResourceID = &id
		err := tx.Transaction(func(tx *gorm.DB) error { return insert(tx, b) })
		switch {
		case err == nil:
			// It can't be deleted from now on, but may have been since it was listed.
			if _, err := existingResource(tx.DB, b.OrganizationID, id); err != nil {
				return err
			}
			return refuseOwnOverlap(tx, sc, b)
		case !store.IsOverlap(err):
			return fmt.Errorf("create appointment: %w", err)
		}
	}
	return models.Errorf(models.CodeSlotTaken, "No resource that may serve this is free at that time.")
}

// setTimes sets the end of an appointment and what it takes of its resource's time.
func setTimes(b *models.Booking, v calendar.Visit) {
	minutes := func(n int) time.Duration { return time.Duration(n) * time.Minute }
	ends := b.StartsAt.Add(minutes(v.Minutes))
	b.EndsAt = &ends
	if v.Before > 0 || v.After > 0 {
		from, until := b.StartsAt.Add(-minutes(v.Before)), ends.Add(minutes(v.After))
		b.BusyFrom, b.BusyUntil = &from, &until
	}
}

// setStatus sets the status of a new appointment and what follows from it.
func setStatus(now time.Time, sc Scope, a Appointment, b *models.Booking, t *models.BookingType) {
	switch {
	case a.Reserve > 0:
		until := now.Add(a.Reserve)
		b.Status, b.ReservedUntil = models.StatusConfirmed, &until
		return
	case sc.Actor() == models.ActorCustomer && needsPayment(t):
		deadline := now.Add(paymentTimeout)
		b.Status, b.PaymentDeadline = models.StatusPendingPayment, &deadline
		return
	case sc.Actor() == models.ActorCustomer && !t.AutoConfirm:
		b.Status = models.StatusPendingApproval
		return
	}
	b.Status = models.StatusConfirmed
	scheduleReminders(b, now)
}

// checkStart refuses a start in the past, too far ahead or, for what is offered to
// patients, outside the days and the notice of the time rules.
func (s *search) checkStart(now time.Time, b *models.Booking, offered bool) error {
	starts := *b.StartsAt
	shown := starts.In(s.Zone).Format("2006-01-02 15:04")
	switch {
	case starts.Before(now):
		return wrong(models.CodePast, "time", "%s has passed.", shown)
	case starts.After(now.Add(maxAhead)):
		return models.Invalid("date", "An appointment is at most five years ahead.")
	case !offered:
		return nil
	}
	s.limit(now, true)
	minute := starts.Unix() / 60
	early, late := true, true
	for _, r := range s.Resources {
		bookable := s.Bookable(r.Hours)
		early, late = early && minute < bookable.From, late && minute >= bookable.To
	}
	switch {
	case early:
		return wrong(models.CodeTooEarly, "time", "%s is too soon: appointments are booked some time before.", shown)
	case late:
		return wrong(models.CodeTooLate, "date", "%s is too far ahead.", shown)
	}
	return nil
}

// wrong makes an Error of a code other than REQ-INVALID that names a field.
func wrong(code models.Code, field, format string, args ...any) error {
	e := models.Errorf(code, format, args...)
	e.Field = field
	return e
}

// openAt returns the resources that are open for all of an appointment and can be booked
// now.
func (s *search) openAt(b *models.Booking) ([]string, error) {
	s.From = calendar.DayOf(*b.StartsAt, s.Zone)
	s.To, s.Grid.AfterMidnight = s.From, true
	var open []string
	for _, at := range s.FreeAt(b.StartsAt.Unix() / 60) {
		open = append(open, s.ids[at])
	}
	if len(open) == 0 {
		return nil, wrong(models.CodeOutsideHours, "time", "No resource that may serve this is open from %s to %s.",
			b.StartsAt.In(s.Zone).Format("2006-01-02 15:04"), b.EndsAt.In(s.Zone).Format("15:04"))
	}
	return open, nil
}

// leastFirst orders resources by how many appointments they have on the day of one;
// the first stays first.
func leastFirst(tx *store.Tx, b *models.Booking, ids []string, first string) ([]string, error) {
	var rows []struct {
		ResourceID string
		Count      int
	}
	err := tx.Table("bookings").Select("resource_id, count(*) AS count").
		Where("organization_id = ? AND local_day = ? AND resource_id IN ? AND "+takesTime, b.OrganizationID, b.LocalDay, ids).
		Group("resource_id").Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("count appointments: %w", err)
	}
	counts := make(map[string]int, len(rows))
	for _, r := range rows {
		counts[r.ResourceID] = r.Count
	}
	counts[first] = -1
	ids = slices.Clone(ids)
	slices.SortStableFunc(ids, func(x, y string) int { return counts[x] - counts[y] })
	return ids, nil
}

// refuseOwnOverlap refuses an appointment that customers make for themselves at a time at
// which they have another. Visitors with different names may share a phone.
func refuseOwnOverlap(tx *store.Tx, sc Scope, b *models.Booking) error {
	if sc.Actor() != models.ActorCustomer {
		return nil
	}
	var others []string
	err := tx.Table("bookings").Where("organization_id = ? AND customer_id = ? AND first_name = ? AND last_name = ?",
		b.OrganizationID, b.CustomerID, b.FirstName, b.LastName).
		Where("id <> ?", b.ID).Where("starts_at < ? AND ends_at > ? AND "+takesTime, b.EndsAt.UTC(), b.StartsAt.UTC()).Limit(1).Pluck("ticket", &others).Error
	if err != nil {
		return fmt.Errorf("look for another appointment of the customer: %w", err)
	}
	if len(others) > 0 {
		return wrong(models.CodeOwnOverlap, "time", "You have another appointment at that time: %s.", others[0])
	}
	return nil
}

// resourcesFor lists the ids of the active resources that could serve an appointment of
// a type, the first one first.
func resourcesFor(db *gorm.DB, sc Scope, typeID string, f Filters, offered bool, first string) ([]string, error) {
	if len(f.Resources) == 1 {
		if !sc.serves(f.Resources[0]) {
			return nil, forbiddenResource()
		}
		if _, err := activeResource(db, sc.OrganizationID, f.Resources[0]); err != nil {
			return nil, err
		}
	}
	q := db.Table("resources AS r").Where("r.organization_id = ? AND r.is_on AND r.activated AND r.deleted_at IS NULL", sc.OrganizationID).
		Where("EXISTS (SELECT 1 FROM resource_types rt WHERE rt.resource_id = r.id AND rt.type_id = ?)", typeID)
	if len(f.Resources) > 0 {
		q = q.Where("r.id IN ?", f.Resources)
	}
	if f.Category != "" {
		q = q.Where("r.category = ?", f.Category)
	}
	if offered { // a rescheduled appointment keeps the resource that the desk chose
		q = q.Where("r.book_from_website OR r.id = ?", first)
	}
	if sc.Provider {
		q = q.Where("r.id IN ?", append([]string{""}, sc.Resources...))
	}
	q = q.Order(clause.OrderBy{Expression: gorm.Expr("CASE r.id WHEN ? THEN 0 ELSE 1 END, r.id", first)})
	var ids []string
	var err error
	if f.narrow.All() {
		err = q.Limit(maxCandidates).Pluck("r.id", &ids).Error
	} else {
		var list []filtered
		err = q.Select("r.id", "r.details").Find(&list).Error
		ids = left(f.narrow, list)
		ids = ids[:min(len(ids), maxCandidates)]
	}
	if err != nil {
		return nil, fmt.Errorf("find resources for an appointment: %w", err)
	}
	if len(ids) == 0 {
		return nil, models.Errorf(models.CodeTypeMismatch, "No active resource that you may choose serves this type.")
	}
	return ids, nil
}
