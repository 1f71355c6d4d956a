package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/calendar"
	"nowserving/booking/store"
	"nowserving/models"
)

// CalendarVersions returns the versions of an organization's calendars by resource, and
// that of the organization itself under "".
func CalendarVersions(db *gorm.DB, organizationID string) (map[string]int64, error) {
	var rows []struct {
		ResourceID string
		Version    int64
	}
	err := db.Model(&models.Calendar{}).Select("resource_id, version").Where("organization_id = ?", organizationID).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("read the versions of calendars: %w", err)
	}
	versions := make(map[string]int64, len(rows))
	for _, r := range rows {
		versions[r.ResourceID] = r.Version
	}
	return versions, nil
}

// Calendars returns all calendars of an organization.
func Calendars(db *gorm.DB, organizationID string) ([]models.Calendar, error) {
	var list []models.Calendar
	err := db.Where("organization_id = ?", organizationID).Find(&list).Error
	return list, listed("calendars", err)
}

// CalendarOf returns the calendar of a resource, or of the organization if resourceID is
// empty, and that of the organization. A calendar that was never stored is empty.
func (c *Catalog) CalendarOf(ctx context.Context, organizationID, resourceID string) (own, common models.Calendar, err error) {
	if resourceID != "" {
		if _, err := c.Resource(ctx, organizationID, resourceID); err != nil {
			return own, common, err
		}
	}
	if own, err = calendarOf(c.store.Read(ctx), organizationID, resourceID); err == nil {
		common, err = calendarOf(c.store.Read(ctx), organizationID, "")
	}
	return own, common, err
}

func calendarOf(db *gorm.DB, organizationID, resourceID string) (models.Calendar, error) {
	one := models.Calendar{OrganizationID: organizationID, ResourceID: resourceID}
	err := db.Where("organization_id = ? AND resource_id = ?", organizationID, resourceID).Take(&one).Error
	if err != nil && !errors.Is(err, gorm.ErrRecordNotFound) {
		return one, fmt.Errorf("read a calendar: %w", err)
	}
	return one, nil
}

// RulesOf returns the time rules that hold by a resource's own calendar and that of its
// organization, and whether the hours are the organization's.
func RulesOf(own, common models.Calendar) (rules models.TimeRules, inherited bool) {
	rules = models.DefaultTimeRules()
	if common.TimeRules != nil {
		rules = *common.TimeRules
	}
	if own.TimeRules == nil {
		return rules, own.ResourceID != ""
	}
	if hours := rules.Rules; own.ResourceID != "" && len(own.TimeRules.Rules) == 0 {
		rules = *own.TimeRules
		rules.Rules = hours
		return rules, true
	}
	return *own.TimeRules, false
}

// OffRulesOf is RulesOf for off rules.
func OffRulesOf(own, common models.Calendar) (rules []models.OffRule, inherited bool) {
	if own.ResourceID != "" && len(own.OffRules) == 0 {
		return common.OffRules, true
	}
	return own.OffRules, false
}

// ChangeCalendar changes the calendar of a resource, or of the organization if
// resourceID is empty. check, if there is one, sees it before it is stored, next to that
// of before, and can refuse it.
func (c *Catalog) ChangeCalendar(
	ctx context.Context, organizationID, resourceID, action string,
	change func(own *models.Calendar, common models.Calendar) error,
	check func(tx *store.Tx, before, after, common models.Calendar) error,
) (own, common models.Calendar, err error) {
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		// A calendar that is not there yet can't be locked, but its organization can.
		var id string
		if err := c.store.Lock(tx).Table("organizations").Where("id = ?", organizationID).Pluck("id", &id).Error; err != nil {
			return fmt.Errorf("lock the organization: %w", err)
		}
		if resourceID != "" {
			if _, err := c.resource(tx.DB, organizationID, resourceID); err != nil {
				return err
			}
		}
		if common, err = calendarOf(tx.DB, organizationID, ""); err != nil {
			return err
		}
		before, err := calendarOf(tx.DB, organizationID, resourceID)
		if err != nil {
			return err
		}
		own = before
		if err := change(&own, common); err != nil {
			return err
		}
		if own.TimeRules != nil {
			if err := c.checkTimeRules(tx, organizationID, own.TimeRules); err != nil {
				return err
			}
		}
		if err := calendar.CheckOffRules(own.OffRules); err != nil {
			return err
		}
		if check != nil {
			if err := check(tx, before, own, common); err != nil {
				return err
			}
		}
		own.Version, own.UpdatedAt = own.Version+1, tx.Now
		if err := tx.Clauses(clause.OnConflict{UpdateAll: true}).Create(&own).Error; err != nil {
			return fmt.Errorf("store a calendar: %w", err)
		}
		if resourceID == "" {
			common = own
		}
		return tx.Audit(organizationID, action, "calendar", resourceID)
	})
	return own, common, err
}

// checkTimeRules checks rules and the booking types they name.
func (c *Catalog) checkTimeRules(tx *store.Tx, organizationID string, rules *models.TimeRules) error {
	if err := calendar.CheckRules(rules); err != nil {
		return err
	}
	var named []string
	for _, r := range rules.Rules {
		named = append(named, r.Types...)
	}
	if len(named) == 0 {
		return nil
	}
	var known []string
	err := tx.Model(&models.BookingType{}).Where("organization_id = ? AND id IN ? AND deleted_at IS NULL", organizationID, named).
		Pluck("id", &known).Error
	if err != nil {
		return fmt.Errorf("read booking types: %w", err)
	}
	return calendar.CheckTypes(*rules, known)
}

// dropFromRules takes a booking type out of the time rules that name it. A rule for no
// other type goes: without types it would be for all.
func dropFromRules(tx *store.Tx, organizationID, typeID string) error {
	list, err := Calendars(tx.DB, organizationID)
	if err != nil {
		return err
	}
	for i := range list {
		c := &list[i]
		if c.TimeRules == nil {
			continue
		}
		var rules []models.TimeRule
		named := false
		for _, r := range c.TimeRules.Rules {
			if at := slices.Index(r.Types, typeID); at >= 0 {
				named = true
				if r.Types = slices.Delete(r.Types, at, at+1); len(r.Types) == 0 {
					continue
				}
			}
			rules = append(rules, r)
		}
		if !named {
			continue
		}
		c.TimeRules.Rules = rules
		c.Version, c.UpdatedAt = c.Version+1, tx.Now
		if err := tx.Clauses(clause.OnConflict{UpdateAll: true}).Create(c).Error; err != nil {
			return fmt.Errorf("store a calendar: %w", err)
		}
	}
	return nil
}
