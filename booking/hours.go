package booking

import (
	"maps"
	"sync"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/calendar"
	"nowserving/booking/catalog"
	"nowserving/models"
)

// maxHours bounds the organizations whose hours are kept. Beyond it all are dropped.
const maxHours = 1000

// hoursCache keeps the parsed rules of organizations. Each use compares their versions
// with the database, so a cached value is never stale.
type hoursCache struct {
	mu   sync.Mutex
	kept map[string]*organizationHours
}

// organizationHours are the hours of an organization's resources.
type organizationHours struct {
	versions map[string]int64
	zone     string
	common   *calendar.Hours
	own      map[string]*calendar.Hours // of resources with rules of their own
}

// of returns the hours of a resource.
func (h *organizationHours) of(resourceID string) *calendar.Hours {
	if own := h.own[resourceID]; own != nil {
		return own
	}
	return h.common
}

// hours returns the hours of an organization's resources.
func (s *Service) hours(db *gorm.DB, organizationID string, zone *time.Location) (*organizationHours, error) {
	versions, err := catalog.CalendarVersions(db, organizationID)
	if err != nil {
		return nil, err
	}
	s.opening.mu.Lock()
	known := s.opening.kept[organizationID]
	s.opening.mu.Unlock()
	if known != nil && known.zone == zone.String() && maps.Equal(known.versions, versions) {
		return known, nil
	}
	read, err := readHours(db, organizationID, zone)
	if err != nil {
		return nil, err
	}
	s.opening.mu.Lock()
	defer s.opening.mu.Unlock()
	if len(s.opening.kept) >= maxHours || s.opening.kept == nil {
		s.opening.kept = map[string]*organizationHours{}
	}
	s.opening.kept[organizationID] = read
	return read, nil
}

func readHours(db *gorm.DB, organizationID string, zone *time.Location) (*organizationHours, error) {
	rows, err := catalog.Calendars(db, organizationID)
	if err != nil {
		return nil, err
	}
	h := &organizationHours{versions: map[string]int64{}, zone: zone.String(), own: map[string]*calendar.Hours{}}
	common := models.Calendar{OrganizationID: organizationID}
	for _, row := range rows {
		h.versions[row.ResourceID] = row.Version
		if row.ResourceID == "" {
			common = row
		}
	}
	if h.common, err = hoursOf(common, common, zone); err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.ResourceID == "" || row.TimeRules == nil && len(row.OffRules) == 0 {
			continue
		}
		if h.own[row.ResourceID], err = hoursOf(row, common, zone); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// hoursOf reads the rules that hold by a resource's own calendar and that of its
// organization.
func hoursOf(own, common models.Calendar, zone *time.Location) (*calendar.Hours, error) {
	rules, _ := catalog.RulesOf(own, common)
	off, _ := catalog.OffRulesOf(own, common)
	return calendar.NewHours(rules, off, zone)
}
