package booking

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

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
		r, err := activeResource(tx.DB, sc.OrganizationID, resourceID)
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
		r, err := activeResource(tx.DB, sc.OrganizationID, resourceID)
		if err != nil {
			return err
		}
		if r.Paused {
			return models.Errorf(models.CodeQueuePaused, "%s has paused.", r.Name)
		}
		// A row that another call is claiming is skipped, so concurrent calls get
		// different patients.
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

func activeResource(db *gorm.DB, organizationID, id string) (*models.Resource, error) {
	r, err := existingResource(db, organizationID, id)
	if err == nil && !r.Active() {
		return nil, models.Errorf(models.CodeResourceOff, "%s is switched off.", r.Name)
	}
	return r, err
}

// existingResource returns a resource that is not deleted. It fails with
// CodeResourceMissing.
func existingResource(db *gorm.DB, organizationID, id string) (*models.Resource, error) {
	var r models.Resource
	err := db.Where("organization_id = ? AND id = ? AND deleted_at IS NULL", organizationID, id).Take(&r).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, models.Errorf(models.CodeResourceMissing, "There is no such resource in the organization.")
	}
	if err != nil {
		return nil, fmt.Errorf("read resource: %w", err)
	}
	return &r, nil
}

// assign assigns the booking that where names to a resource. It returns errLost if
// the booking is already assigned or expired.
func (s *Service) assign(tx *store.Tx, where *gorm.DB, resourceID string) (*models.Booking, error) {
	return s.change(tx, where.Where("resource_id IS NULL AND assignment_deadline > ?", tx.Now), models.ActionAssign, models.ActorStaff,
		map[string]any{"resource_id": resourceID, "called_at": tx.Now, "last_called_at": tx.Now})
}

// See finds a booking that the caller may see.
func (s *Service) See(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	b, err := s.Get(ctx, sc.OrganizationID, id)
	if err != nil {
		return nil, err
	}
	return b, sc.mayView(s.store.Read(ctx), b)
}

func nothing(time.Time) map[string]any { return map[string]any{} }

// Start begins the visit of a called patient, or of one who came to an appointment,
// which then counts as called.
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

// Hold puts a waiting booking on hold: it keeps its join sequence, is skipped by Next
// and counts ahead of no other.
func (s *Service) Hold(ctx context.Context, sc Scope, id string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionHold, nothing, nil)
}

// Return puts a held booking back at its join sequence and returns its place.
func (s *Service) Return(ctx context.Context, sc Scope, id string) (*models.Booking, *Place, error) {
	b, at, err := s.actAt(ctx, sc, id, models.ActionReturn, nothing, nil)
	if err != nil {
		return nil, nil, err
	}
	return b, s.placeAfter(ctx, b, at), nil
}

// Cancel cancels a booking that is not being served.
func (s *Service) Cancel(ctx context.Context, sc Scope, id, reason string) (*models.Booking, error) {
	return s.act(ctx, sc, id, models.ActionCancel, func(now time.Time) map[string]any {
		return map[string]any{"cancel_reason": reason, "ended_at": now}
	}, nil)
}

// SetPaused pauses or resumes a resource's queue and announces it to live clients.
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

// AnnounceCatalogue makes every node read an organization's names and durations again.
// Call it after the commit. If it fails, the nodes read them within seconds.
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
