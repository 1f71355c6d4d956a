package booking

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/catalog"
	"nowserving/booking/store"
	"nowserving/models"
)

// TimeRulesChange changes time rules. What is nil is unchanged.
type TimeRulesChange struct {
	DepthOfDays, ScheduleAfterHoursFromNow *int
	Rules                                  *[]models.TimeRule
}

// ChangeTimeRules changes the time rules of a resource, or of the organization if
// resourceID is empty. A resource without rules of its own follows the organization's.
func (s *Service) ChangeTimeRules(
	ctx context.Context, sc Scope, resourceID string, change TimeRulesChange,
) (own, common models.Calendar, err error) {
	if resourceID != "" && !sc.serves(resourceID) {
		return own, common, forbiddenResource()
	}
	return s.catalog.ChangeCalendar(ctx, sc.OrganizationID, resourceID, "changeTimeRules", func(own *models.Calendar, common models.Calendar) error {
		rules, inherited := catalog.RulesOf(*own, common)
		if inherited {
			rules.Rules = nil
		}
		if change.DepthOfDays != nil {
			rules.DepthOfDays = *change.DepthOfDays
		}
		if change.ScheduleAfterHoursFromNow != nil {
			rules.ScheduleAfterHoursFromNow = *change.ScheduleAfterHoursFromNow
		}
		if change.Rules != nil {
			rules.Rules = *change.Rules
		}
		own.TimeRules = &rules
		return nil
	}, nil)
}

// ChangeOffRules replaces the off rules of a resource, or of the organization if
// resourceID is empty. Without force it fails with CodeBooked, and the bookings, if the
// rules close time that was open before and in which appointments are booked. With force
// the appointments stay.
func (s *Service) ChangeOffRules(
	ctx context.Context, sc Scope, resourceID string, off []models.OffRule, force bool,
) (own, common models.Calendar, err error) {
	if resourceID != "" && !sc.serves(resourceID) {
		return own, common, forbiddenResource()
	}
	return s.catalog.ChangeCalendar(ctx, sc.OrganizationID, resourceID, "changeOffRules", func(own *models.Calendar, _ models.Calendar) error {
		own.OffRules = off
		return nil
	}, func(tx *store.Tx, before, after, common models.Calendar) error {
		if force {
			return nil
		}
		return refuseClosing(tx, before, after, common)
	})
}

// refuseClosing fails with CodeBooked if a changed calendar closes time in which
// appointments are booked.
func refuseClosing(tx *store.Tx, before, after, common models.Calendar) error {
	zone, err := zoneOf(tx.DB, after.OrganizationID)
	if err != nil {
		return err
	}
	was, err := hoursOf(before, common, zone)
	if err != nil {
		return err
	}
	if after.ResourceID == "" {
		common = after
	}
	is, err := hoursOf(after, common, zone)
	if err != nil {
		return err
	}
	q := futureAppointments(tx).Where("organization_id = ?", after.OrganizationID)
	if after.ResourceID != "" {
		q = q.Where("resource_id = ?", after.ResourceID)
	} else { // resources with off rules of their own don't follow the organization's
		own, err := catalog.Calendars(tx.DB, after.OrganizationID)
		if err != nil {
			return err
		}
		others := []string{""}
		for _, c := range own {
			if len(c.OffRules) > 0 {
				others = append(others, c.ResourceID)
			}
		}
		q = q.Where("resource_id NOT IN ?", others)
	}
	var ids []string
	booked := 0
	err = eachRow(q.Select("id, starts_at, ends_at").Order("starts_at"), func(scan func(...any) error) error {
		var id string
		var starts, ends time.Time
		if err := scan(&id, &starts, &ends); err != nil {
			return err
		}
		if is.Closes(starts, ends) && !was.Closes(starts, ends) {
			if booked++; len(ids) < models.MaxNamedBookings {
				ids = append(ids, id)
			}
		}
		return nil
	})
	if err != nil || booked == 0 {
		return err
	}
	refusal := models.Errorf(models.CodeBooked, "%d appointments are booked in the time that the rules close. Nothing was changed.", booked)
	refusal.Bookings = ids
	return refusal
}

func futureAppointments(tx *store.Tx) *gorm.DB {
	return tx.Table("bookings").Where("ends_at > ? AND "+takesTime, tx.Now.UTC())
}

func zoneOf(db *gorm.DB, organizationID string) (*time.Location, error) {
	var name string
	err := db.Table("organizations").Where("id = ?", organizationID).Pluck("timezone", &name).Error
	if err != nil {
		return nil, fmt.Errorf("read the time zone of an organization: %w", err)
	}
	return time.LoadLocation(name)
}

// DeleteResource deletes a resource. It fails with CodeResourceInUse while appointments
// are booked with it; with cancelBooked they are canceled.
func (s *Service) DeleteResource(ctx context.Context, sc Scope, id string, cancelBooked bool) error {
	var canceled []*models.Booking
	err := s.catalog.DeleteResource(ctx, sc.OrganizationID, id, func(tx *store.Tx) error {
		var err error
		canceled, err = s.clear(tx, sc, "resource_id", id, models.CodeResourceInUse, cancelBooked)
		return err
	})
	return s.cleared(ctx, canceled, err)
}

// DeleteType is DeleteResource for a booking type. It also fails, with CodeTypeInUse,
// while bookings of the type wait in a queue.
func (s *Service) DeleteType(ctx context.Context, sc Scope, id string, cancelBooked bool) error {
	var canceled []*models.Booking
	err := s.catalog.DeleteType(ctx, sc.OrganizationID, id, func(tx *store.Tx) error {
		var err error
		canceled, err = s.clear(tx, sc, "type_id", id, models.CodeTypeInUse, cancelBooked)
		return err
	})
	return s.cleared(ctx, canceled, err)
}

// maxCleared bounds the appointments that one deletion cancels.
const maxCleared = 5000

// clear cancels the future appointments whose column is id, or refuses if there are any.
func (s *Service) clear(tx *store.Tx, sc Scope, column, id string, code models.Code, cancelBooked bool) ([]*models.Booking, error) {
	var ids []string
	err := futureAppointments(tx).Where("organization_id = ? AND stage = '' AND "+column+" = ?", sc.OrganizationID, id).
		Order("starts_at").Limit(maxCleared+1).Pluck("id", &ids).Error
	if err != nil {
		return nil, fmt.Errorf("look for future appointments: %w", err)
	}
	switch {
	case len(ids) == 0:
		return nil, nil
	case !cancelBooked || len(ids) > maxCleared:
		refusal := models.Errorf(code, "%d appointments are booked. With cancel=true they would be canceled, and their customers told.", len(ids))
		refusal.Bookings = ids[:min(len(ids), models.MaxNamedBookings)]
		return nil, refusal
	}
	canceled := make([]*models.Booking, len(ids))
	for i, booked := range ids {
		where := tx.Where("organization_id = ? AND id = ?", sc.OrganizationID, booked)
		set := map[string]any{"ended_at": tx.Now, "cancel_reason": ""}
		if canceled[i], err = s.change(tx, where, models.ActionCancel, sc.Actor(), set); err != nil {
			return nil, err
		}
	}
	return canceled, nil
}

// cleared publishes what clear has canceled, after the commit.
func (s *Service) cleared(ctx context.Context, canceled []*models.Booking, err error) error {
	if err != nil {
		return err
	}
	for _, b := range canceled {
		s.publish(ctx, b, models.EventCanceled)
	}
	return nil
}
