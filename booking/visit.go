package booking

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/access"
	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/models"
)

// Scope limits what a caller may touch.
type Scope struct {
	OrganizationID string
	// CustomerID, when set, limits to that customer's own bookings.
	CustomerID string
	// BookingID, when set, limits to that booking: the caller has its ticket,
	// and acts as its customer.
	BookingID string
	// Resources, when Provider is set, are the ones the caller acts for. Besides,
	// they may look at the bookings that Confirmed have taken, and at those that
	// wait for Requests.
	Provider                       bool
	Resources, Confirmed, Requests []string
}

// Customers returns which customers the caller may reach: for a provider, those
// with a booking that has one of their resources or waits for one.
func (sc Scope) Customers() access.CustomerScope {
	switch {
	case sc.BookingID != "": // a ticket does not show whose it is
		return access.CustomerScope{}
	case sc.CustomerID != "":
		return access.OneCustomer(sc.OrganizationID, sc.CustomerID)
	case sc.Provider:
		return access.CustomersWith(sc.OrganizationID, sc.limit)
	}
	return access.AllCustomers(sc.OrganizationID)
}

// Actor is who the caller is to those who are told of a change.
func (sc Scope) Actor() models.Actor {
	if sc.CustomerID != "" || sc.BookingID != "" {
		return models.ActorCustomer
	}
	return models.ActorStaff
}

// serves reports whether the caller may act for a resource.
func (sc Scope) serves(resourceID string) bool {
	return !sc.Provider || slices.Contains(sc.Resources, resourceID)
}

// seesRequests reports whether the caller may look at who waits for a resource.
func (sc Scope) seesRequests(resourceID string) bool {
	return sc.serves(resourceID) || slices.Contains(sc.Requests, resourceID)
}

func forbiddenResource() error {
	return models.Errorf(models.CodeForbidden, "You do not act for this resource.")
}

// Assign gives a waiting or held booking to a resource. Exactly one caller
// wins; the others get SCH-ALREADY_ASSIGNED, or BKS-110 after the timeout
// (Instant Booking, "Race Condition Handling").
func (s *Service) Assign(ctx context.Context, sc Scope, id, resourceID string) (*models.Booking, error) {
	if !sc.serves(resourceID) {
		return nil, forbiddenResource()
	}
	var b *models.Booking
	err := s.store.Tx(ctx, func(tx *store.Tx) error {
		before, err := s.get(tx.DB, sc.OrganizationID, id)
		if err != nil {
			return err
		}
		r, err := activeResource(tx, sc.OrganizationID, resourceID)
		if err != nil {
			return err
		}
		fits, err := matchingResources(tx.DB, before.Seq)
		if err != nil {
			return err
		}
		if !slices.Contains(fits, r.ID) {
			return models.Errorf(models.CodeTypeMismatch, "%s does not serve this booking.", r.Name)
		}
		b, err = s.assign(tx, tx.Where("seq = ?", before.Seq), r.ID)
		if errors.Is(err, errLost) {
			return s.whyNot(tx, before.ID, sc, models.ActionAssign)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	s.publish(ctx, b, models.EventAssigned)
	return b, nil
}

// Next claims the head of a resource's queue in one step.
func (s *Service) Next(ctx context.Context, sc Scope, resourceID string) (*models.Booking, error) {
	if !sc.serves(resourceID) {
		return nil, forbiddenResource()
	}
	var b *models.Booking
	err := s.store.Tx(ctx, func(tx *store.Tx) error {
		r, err := activeResource(tx, sc.OrganizationID, resourceID)
		if err != nil {
			return err
		}
		if r.Paused {
			return models.Errorf(models.CodeQueuePaused, "%s has paused.", r.Name)
		}
		// A row that somebody else is taking right now is passed over, so two
		// resources that call at once get two different patients.
		head := s.store.SkipLocked(tx).Table("bookings AS b").Select("b.seq").
			Where("b.organization_id = ? AND b.stage = 'WAITING' AND b.assignment_deadline > ?", sc.OrganizationID, tx.Now).
			Where("EXISTS (SELECT 1 FROM resources r WHERE r.id = ? AND "+matches("b")+")", resourceID).
			Order("b.priority DESC, b.seq").Limit(1)
		b, err = s.assign(tx, tx.Where("seq = (?)", head), resourceID)
		if errors.Is(err, errLost) {
			return models.Errorf(models.CodeQueueEmpty, "Nobody waits for %s.", r.Name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	s.publish(ctx, b, models.EventAssigned)
	return b, nil
}

func activeResource(tx *store.Tx, organizationID, id string) (*models.Resource, error) {
	var r models.Resource
	err := tx.Where("organization_id = ? AND id = ? AND deleted_at IS NULL", organizationID, id).Take(&r).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(models.CodeResourceMissing, "There is no such resource in the organization.")
	}
	if err != nil {
		return nil, fmt.Errorf("read resource: %w", err)
	}
	if !r.Active() {
		return nil, models.Errorf(models.CodeResourceOff, "%s is switched off.", r.Name)
	}
	return &r, nil
}

// assign gives the booking that where names to a resource if nobody has, and
// reports errLost otherwise.
func (s *Service) assign(tx *store.Tx, where *gorm.DB, resourceID string) (*models.Booking, error) {
	return s.change(tx, where.Where("resource_id IS NULL AND assignment_deadline > ?", tx.Now), models.ActionAssign, models.ActorStaff,
		map[string]any{"resource_id": resourceID, "called_at": tx.Now, "last_called_at": tx.Now})
}

// errLost says that no row was in the state a change starts from.
var errLost = errors.New("booking is in another state")

// change makes one legal transition of the one booking that where names, and
// the event that tells of it. It reports errLost when the booking is in no
// state the transition starts from.
func (s *Service) change(tx *store.Tx, where *gorm.DB, a models.Action, by models.Actor, set map[string]any) (*models.Booking, error) {
	if by == models.ActorStaff && a.Undoable() {
		set["undo_action"], set["undo_until"] = a, tx.Now.Add(models.UndoWindow)
		for _, column := range []string{"status", "stage", "ends_at"} { // as they were before
			set["undo_"+column] = gorm.Expr(column)
		}
	}
	b, err := s.move(tx, where, a, set)
	if err != nil {
		return nil, err
	}
	event := models.EventOf(models.TransitionOf(a).Event, b)
	event.Action, event.By = a, by
	return b, tx.Emit(b.OrganizationID, event)
}

// move is change without the event: the conditional update and the new row.
func (s *Service) move(tx *store.Tx, where *gorm.DB, a models.Action, set map[string]any) (*models.Booking, error) {
	t := models.TransitionOf(a)
	set["status"], set["stage"], set["updated_at"] = t.Status, t.Stage, tx.Now
	set["version"] = gorm.Expr("version + 1")
	if set["undo_action"] == nil {
		maps.Copy(set, nothingToUndo())
	}
	var b models.Booking
	done := where.Where("status IN ? AND stage IN ?", t.FromStatus, t.FromStage).
		Model(&b).Clauses(clause.Returning{}).Updates(set)
	switch {
	case store.IsErased(done.Error):
		return nil, errErased
	case done.Error != nil:
		return nil, fmt.Errorf("%s booking: %w", a, done.Error)
	case done.RowsAffected == 0:
		return nil, errLost
	case b.StartsAt != nil:
		return &b, settle(tx, &b)
	}
	return &b, nil
}

// act makes a transition of the booking with an id, when also is true of it.
func (s *Service) act(ctx context.Context, sc Scope, id string, a models.Action, set func(now time.Time) map[string]any,
	also func(tx *store.Tx, q *gorm.DB) *gorm.DB,
) (*models.Booking, error) {
	b, _, err := s.actAt(ctx, sc, id, a, set, also)
	return b, err
}

// actAt is act that also returns the moment the index took the change in.
func (s *Service) actAt(ctx context.Context, sc Scope, id string, a models.Action, set func(now time.Time) map[string]any,
	also func(tx *store.Tx, q *gorm.DB) *gorm.DB,
) (*models.Booking, queue.Moment, error) {
	var b *models.Booking
	err := s.store.Tx(ctx, func(tx *store.Tx) error {
		where := sc.limit(tx.Where("organization_id = ? AND id = ?", sc.OrganizationID, id))
		if also != nil {
			where = also(tx, where)
		}
		var err error
		b, err = s.change(tx, where, a, sc.Actor(), set(tx.Now))
		if errors.Is(err, errLost) {
			return s.whyNot(tx, id, sc, a)
		}
		return err
	})
	if err != nil {
		return nil, queue.Moment{}, err
	}
	return b, s.publish(ctx, b, models.TransitionOf(a).Event), nil
}

// limit narrows a query to what the caller may touch. A provider acts for
// bookings of their resources, and for those that no resource has taken yet and
// that match one of theirs.
func (sc Scope) limit(q *gorm.DB) *gorm.DB { return sc.within(q, sc.Resources, sc.Resources) }

// view narrows a query to what the caller may look at.
func (sc Scope) view(q *gorm.DB) *gorm.DB {
	return sc.within(q, slices.Concat(sc.Resources, sc.Confirmed), slices.Concat(sc.Resources, sc.Requests))
}

func (sc Scope) within(q *gorm.DB, confirmed, requests []string) *gorm.DB {
	if sc.CustomerID != "" {
		q = q.Where("customer_id = ?", sc.CustomerID)
	}
	if sc.BookingID != "" {
		q = q.Where("id = ?", sc.BookingID)
	}
	if sc.Provider {
		some := func(ids []string) []string { return append([]string{""}, ids...) } // IN () is no SQL
		q = q.Where("(resource_id IN ? OR resource_id IS NULL AND EXISTS (SELECT 1 FROM resources r WHERE r.id IN ? AND "+matches("bookings")+"))",
			some(confirmed), some(requests))
	}
	return q
}

// See finds a booking that the caller may see.
func (s *Service) See(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	b, err := s.Get(ctx, sc.OrganizationID, id)
	if err != nil {
		return nil, err
	}
	return b, sc.mayView(s.store.Read(ctx), b)
}

// mayTouch says why the caller may not change a booking, or nil.
func (sc Scope) mayTouch(db *gorm.DB, b *models.Booking) error { return sc.allows(db, b, sc.limit) }

// mayView says why the caller may not look at a booking, or nil.
func (sc Scope) mayView(db *gorm.DB, b *models.Booking) error { return sc.allows(db, b, sc.view) }

// allows asks whether a booking is among those that narrow leaves. To a customer
// somebody else's booking looks like none.
func (sc Scope) allows(db *gorm.DB, b *models.Booking, narrow func(*gorm.DB) *gorm.DB) error {
	if sc.CustomerID != "" && b.CustomerID != sc.CustomerID || sc.BookingID != "" && b.ID != sc.BookingID {
		return models.Errorf(models.CodeBookingNotFound, "There is no such booking in the organization.")
	}
	if !sc.Provider {
		return nil
	}
	var within int64
	if err := narrow(db.Model(&models.Booking{}).Where("seq = ?", b.Seq)).Count(&within).Error; err != nil {
		return fmt.Errorf("check a provider's scope: %w", err)
	}
	if within == 0 {
		return models.Errorf(models.CodeForbidden, "You do not act for a resource of this booking.")
	}
	return nil
}

// whyNot explains why a booking could not make a transition.
func (s *Service) whyNot(tx *store.Tx, id string, sc Scope, a models.Action) error {
	b, err := s.get(tx.DB, sc.OrganizationID, id)
	if err != nil {
		return err
	}
	if a != models.ActionAssign { // to assign, it is the resource that counts
		if err := sc.mayTouch(tx.DB, b); err != nil {
			return err
		}
	}
	switch {
	case a == models.ActionAssign && b.ResourceID != nil:
		return models.Errorf(models.CodeAlreadyAssigned, "Booking %s has been assigned already.", b.Ticket)
	case b.Status == models.StatusRejected,
		a == models.ActionAssign && b.AssignmentDeadline != nil && !tx.Now.Before(*b.AssignmentDeadline):
		return models.Errorf(models.CodeExpired, "Booking %s was not assigned in time and has expired.", b.Ticket)
	case a == models.ActionRecall && b.Stage == models.StageCalled && b.RecallCount >= models.MaxRecalls:
		return models.Errorf(models.CodeRecallLimit, "Booking %s has been called again %d times.", b.Ticket, b.RecallCount)
	case a == models.ActionRecall && b.Stage == models.StageCalled && b.LastCalledAt != nil:
		wait := b.LastCalledAt.Add(models.RecallPause).Sub(tx.Now)
		e := models.Errorf(models.CodeRecallTooSoon, "Booking %s was called less than a minute ago.", b.Ticket)
		e.RetryAfter = max(wait, time.Second)
		return e
	}
	stage := string(b.Stage)
	if b.Stage == models.StageNone {
		stage = string(b.Status)
	}
	return models.Errorf(models.CodeStage, "Booking %s is %s; it is too late or too early for %s.", b.Ticket, stage, a)
}

func nothing(time.Time) map[string]any { return map[string]any{} }

// Start says that the called patient is being served, or whoever came to their
// appointment; being let in is then the one call they get.
func (s *Service) Start(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionStart, func(now time.Time) map[string]any {
		return map[string]any{
			"started_at": now, "called_at": gorm.Expr("COALESCE(called_at, ?)", now), "last_called_at": gorm.Expr("COALESCE(last_called_at, ?)", now),
		}
	}, nil)
}

// End finishes a visit and sets its real end.
func (s *Service) End(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionEnd, func(now time.Time) map[string]any { return map[string]any{"ended_at": now} }, nil)
}

// NoShow records that the patient did not come, when called or to their
// appointment.
func (s *Service) NoShow(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionNoShow, func(now time.Time) map[string]any { return map[string]any{"ended_at": now} }, nil)
}

// Recall calls a called patient again: not sooner than 60 seconds after the
// last call, and at most three times.
func (s *Service) Recall(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	set := func(now time.Time) map[string]any {
		return map[string]any{"last_called_at": now, "recall_count": gorm.Expr("recall_count + 1")}
	}
	return s.act(ctx, sc, id, models.ActionRecall, set, func(tx *store.Tx, q *gorm.DB) *gorm.DB {
		return q.Where("recall_count < ? AND last_called_at <= ?", models.MaxRecalls, tx.Now.Add(-models.RecallPause))
	})
}

// Hold lets a waiting patient step aside: the booking keeps its sequence, is
// skipped by Next and counts ahead of nobody.
func (s *Service) Hold(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionHold, nothing, nil)
}

// Return puts a held patient back at their join sequence and says where that is.
func (s *Service) Return(ctx context.Context, sc Scope, id string) (*models.Booking, *Place, error) {
	b, at, err := s.actAt(ctx, sc, id, models.ActionReturn, nothing, nil)
	if err != nil {
		return nil, nil, err
	}
	return b, s.placeAfter(ctx, b, at), nil
}

// Cancel takes a booking out before it is served: a customer leaves the queue,
// or the desk cancels.
func (s *Service) Cancel(ctx context.Context, sc Scope, id, reason string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionCancel, func(now time.Time) map[string]any {
		return map[string]any{"cancel_reason": reason, "ended_at": now}
	}, nil)
}

// SetPaused pauses or resumes a resource's queue and tells who watches it.
func (s *Service) SetPaused(ctx context.Context, sc Scope, resourceID string, paused bool) (*models.Resource, error) {
	if !sc.serves(resourceID) {
		return nil, forbiddenResource()
	}
	r, err := s.catalog.SetPaused(ctx, sc.OrganizationID, resourceID, paused)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	if err := s.index.Announce(ctx, r.OrganizationID, r.ID, r.UpdatedAt); err != nil {
		s.log.Warn("a pause was not announced", "resource", r.ID, "error", err)
	}
	return r, nil
}

// AnnounceCatalogue tells every node that names or durations of an organization
// have changed, after the commit. A failure loses nothing that lasts: nodes read
// them again within seconds.
func (s *Service) AnnounceCatalogue(ctx context.Context, organizationID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	now, err := s.store.Now(ctx)
	if err == nil {
		err = s.index.Announce(ctx, organizationID, "", now)
	}
	if err != nil {
		s.log.Warn("a change of the catalogue was not announced", "organization", organizationID, "error", err)
	}
}

// OwnerOf returns the organization a booking belongs to, for a credential that
// acts for every organization.
func (s *Service) OwnerOf(ctx context.Context, id string) (organizationID string, err error) {
	var b models.Booking
	err = s.store.Read(ctx).Select("organization_id").Where("id = ?", id).Take(&b).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return "", models.Errorf(models.CodeBookingNotFound, "There is no such booking.")
	}
	if err != nil {
		return "", fmt.Errorf("find the owner: %w", err)
	}
	return b.OrganizationID, nil
}
