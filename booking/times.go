package booking

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/calendar"
	"nowserving/models"
)

// MaxTimesDays bounds the days that one search looks at.
const MaxTimesDays = 366

// TimesQuery asks when visits of a type can be booked.
type TimesQuery struct {
	TypeID string
	// From and To are the first and the last day. Default: today, and the last day that
	// can be booked. At most MaxTimesDays are looked at.
	From, To *calendar.Day
	// Limit bounds the days that are returned. 0: all.
	Limit int
	// Grid says at which times of a day a visit may begin.
	Grid    calendar.Grid
	Filters Filters
	// FilterFields and Adjusters are values of custom fields.
	FilterFields, Adjusters models.Fields
	// Offered allows only what patients can book themselves: types and resources with
	// bookFromWebsite, within the days and the notice of the time rules.
	Offered bool
	// Reschedule is the id of a booking whose own time counts as free.
	Reschedule string

	extra int // minutes that the adjusters add
}

// FreeDay is a day with its free times.
type FreeDay struct {
	Day   calendar.Day
	Times []FreeTime
}

// FreeTime is a time at which a visit can be booked.
type FreeTime struct {
	Time        int // military, in the organization's time zone
	Start, End  time.Time
	ResourceIDs []string // that are free
}

// FreeTimes are the days that have a free time.
type FreeTimes struct {
	Days    []FreeDay
	Minutes int // of a visit
	// Next is the day on which the next page begins, nil on the last.
	Next *calendar.Day
}

// Times finds free times. A time is free for a resource that serves the type, is open
// for the whole visit and has no other appointment then, the buffers of both included.
// Days without a free time are left out.
func (s *Service) Times(ctx context.Context, sc Scope, q TimesQuery) (*FreeTimes, error) {
	if err := s.answerTimes(s.store.Read(ctx), sc.OrganizationID, &q); err != nil {
		return nil, err
	}
	return s.times(ctx, sc, q)
}

// times is Times after the custom fields were read.
func (s *Service) times(ctx context.Context, sc Scope, q TimesQuery) (*FreeTimes, error) {
	t, zone, err := s.offeredType(ctx, sc.OrganizationID, q.TypeID, q.Offered)
	if err != nil {
		return nil, err
	}
	db := s.store.Read(ctx)
	resources, err := resourcesFor(db, sc, t.ID, q.Filters, q.Offered, "")
	if err != nil {
		return nil, err
	}
	search, err := s.newSearch(db, t, zone, q.extra, resources)
	if err != nil {
		return nil, err
	}
	now := s.store.Time()
	first, last := calendar.DayOf(now, zone), search.limit(now, q.Offered)
	if q.From != nil {
		first = max(first, *q.From)
	}
	if q.To != nil {
		last = min(last, *q.To)
	}
	search.Grid = q.Grid
	found := &FreeTimes{Minutes: search.Visit.Minutes}
	if last-first >= MaxTimesDays {
		last = first + MaxTimesDays - 1
		next := last + 1
		found.Next = &next
	}
	days := last - first + 1 // that are searched at once
	if q.Limit > 0 {
		days = min(days, max(fewDays, 2*calendar.Day(q.Limit)))
	}
	for search.From = first; search.From <= last; search.From = search.To + 1 {
		search.To = min(search.From+days-1, last)
		if err := s.readBusy(db, sc.OrganizationID, search, q.Reschedule); err != nil {
			return nil, err
		}
		for _, free := range search.Free() {
			if !found.add(search, free, q.Limit) {
				found.Next = &free.Day
				return found, nil
			}
		}
		days *= 2
	}
	return found, nil
}

// fewDays is how many days are searched first if not all are wanted.
const fewDays = 14

// add adds a free time, unless its day would be one more than limit allows. 0: all.
func (f *FreeTimes) add(q *search, free calendar.Time, limit int) bool {
	days := len(f.Days)
	if days == 0 || f.Days[days-1].Day != free.Day {
		if limit > 0 && days == limit {
			return false
		}
		f.Days = append(f.Days, FreeDay{Day: free.Day})
		days++
	}
	day := &f.Days[days-1]
	day.Times = append(day.Times, q.time(free))
	return true
}

// offeredType returns a booking type that is on, with the time zone of the organization.
func (s *Service) offeredType(ctx context.Context, organizationID, typeID string, offered bool) (*models.BookingType, *time.Location, error) {
	organization, err := s.catalog.Organization(ctx, organizationID)
	if err != nil {
		return nil, nil, err
	}
	zone, err := time.LoadLocation(organization.Timezone)
	if err != nil {
		return nil, nil, fmt.Errorf("time zone of organization %s: %w", organizationID, err)
	}
	t, err := s.catalog.Type(ctx, organizationID, typeID)
	if err != nil {
		return nil, nil, err
	}
	if !t.On {
		return nil, nil, models.Errorf(models.CodeTypeOff, "The booking type is switched off.")
	}
	if offered && !t.BookFromWebsite {
		return nil, nil, models.Errorf(models.CodeNotOffered, "Patients can't book %s themselves.", t.Name)
	}
	return t, zone, nil
}

// search is a calendar.Search with the resources it is about.
type search struct {
	calendar.Search
	ids []string
}

// newSearch makes the search for a visit of a type, extra minutes longer, without days
// and without what is taken.
func (s *Service) newSearch(db *gorm.DB, t *models.BookingType, zone *time.Location, extra int, resources []string) (*search, error) {
	hours, err := s.hours(db, t.OrganizationID, zone)
	if err != nil {
		return nil, err
	}
	before, after := t.Leave()
	out := &search{
		Search: calendar.Search{
			Zone: zone, TypeID: t.ID, Visit: calendar.Visit{Minutes: t.Minutes + extra, Before: before, After: after},
		},
		ids: resources,
	}
	schedule, err := t.Schedule()
	if err != nil {
		return nil, err
	}
	if schedule != nil {
		if len(schedule.Rules) == 0 {
			schedule.Rules = alwaysOpen
		}
		if out.Narrow, err = calendar.NewHours(*schedule, nil, zone); err != nil {
			return nil, fmt.Errorf("read the schedule of booking type %s: %w", t.ID, err)
		}
	}
	for _, id := range resources {
		out.Resources = append(out.Resources, calendar.Resource{Hours: hours.of(id)})
	}
	return out, nil
}

// alwaysOpen are the hours of a schedule that names none.
var alwaysOpen = []models.TimeRule{{Weekdays: []int{0, 1, 2, 3, 4, 5, 6}, Slots: []models.TimeSlot{{From: 0, To: 2400}}}}

// limit sets where visits that are booked now may begin and returns the last day. For
// the desk, that is anywhere in the future.
func (s *search) limit(now time.Time, offered bool) calendar.Day {
	if !offered {
		start := (now.Unix() + 59) / 60
		s.Bookable = func(*calendar.Hours) calendar.Span {
			return calendar.Span{From: start, To: now.Add(maxAhead).Unix() / 60}
		}
		return calendar.DayOf(now.Add(maxAhead), s.Zone)
	}
	s.Bookable = func(h *calendar.Hours) calendar.Span {
		bookable := h.Bookable(now)
		if s.Narrow != nil {
			narrow := s.Narrow.Bookable(now)
			bookable = calendar.Span{From: max(bookable.From, narrow.From), To: min(bookable.To, narrow.To)}
		}
		return bookable
	}
	last := calendar.DayOf(now, s.Zone)
	for _, r := range s.Resources {
		last = max(last, calendar.DayOf(now, s.Zone)+calendar.Day(r.Hours.Depth))
	}
	return last
}

// time names the resources of a free time.
func (s *search) time(free calendar.Time) FreeTime {
	out := FreeTime{Time: calendar.Military(free.OfDay), Start: free.Start(), ResourceIDs: make([]string, len(free.Resources))}
	out.End = out.Start.Add(time.Duration(s.Visit.Minutes) * time.Minute)
	for i, at := range free.Resources {
		out.ResourceIDs[i] = s.ids[at]
	}
	return out
}

// takesTime is true of appointments that keep others from their time, as the database
// sees it when it refuses two at a time.
const takesTime = "starts_at IS NOT NULL AND status NOT IN ('CANCELED', 'REJECTED') AND stage NOT IN ('DONE', 'NO_SHOW', 'LEFT')"

// busyFrom and busyUntil are what an appointment takes of its resource's time.
const (
	busyFrom  = "COALESCE(busy_from, starts_at)"
	busyUntil = "COALESCE(busy_until, ends_at)"
)

// maxVisit bounds how long before and after its start an appointment can take time: a
// day, a day of custom fields and the buffers.
const maxVisit = 4 * 24 * time.Hour

// readBusy reads the appointments of the search's resources, but not the one with an id.
func (s *Service) readBusy(db *gorm.DB, organizationID string, q *search, except string) error {
	v := q.Visit // which may end on the day after To
	from := q.From.Start(q.Zone).Add(-time.Duration(v.Before) * time.Minute).UTC()
	to := (q.To + 1).Start(q.Zone).Add(time.Duration(v.Minutes+v.After) * time.Minute).UTC()
	at := make(map[string]int, len(q.ids))
	for i, id := range q.ids {
		at[id] = i
		q.Resources[i].Busy = nil
	}
	rows := db.Table("bookings").
		Select("resource_id, "+s.store.UnixSeconds(busyFrom)+", "+s.store.UnixSeconds(busyUntil)).
		Where("organization_id = ? AND id <> ? AND "+takesTime, organizationID, except).
		Where("starts_at >= ? AND starts_at < ?", from.Add(-maxVisit), to.Add(maxVisit)). // by the index
		Where(busyUntil+" > ? AND "+busyFrom+" < ?", from, to)
	if len(q.ids) < fewResources {
		rows = rows.Where("resource_id IN ?", append([]string{""}, q.ids...))
	}
	return eachRow(rows, func(scan func(...any) error) error {
		var id string
		var from, until int64
		if err := scan(&id, &from, &until); err != nil {
			return err
		}
		if i, asked := at[id]; asked {
			busy := &q.Resources[i].Busy
			*busy = append(*busy, calendar.Span{From: from / 60, To: (until + 59) / 60})
		}
		return nil
	})
}

// fewResources is how many are named in a query. Of more, all appointments of the
// organization are read.
const fewResources = 20

// eachRow calls read with the rows of a query, without GORM's models, which take several
// times as long.
func eachRow(q *gorm.DB, read func(scan func(...any) error) error) (err error) {
	rows, err := q.Rows()
	if err != nil {
		return fmt.Errorf("read appointments: %w", err)
	}
	defer func() {
		if closing := rows.Close(); err == nil && closing != nil {
			err = fmt.Errorf("read appointments: %w", closing)
		}
	}()
	for rows.Next() {
		if err := read(rows.Scan); err != nil {
			return fmt.Errorf("read appointments: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read appointments: %w", err)
	}
	return nil
}

// alternatives is how many free times are offered to a caller whose time is taken.
const alternatives = 3

// alternativesTo returns the next free times from the wanted one on, at the minute of the
// hour that was wanted and on the hour.
func (s *Service) alternativesTo(ctx context.Context, sc Scope, q TimesQuery, wanted time.Time, zone *time.Location) ([]FreeTime, error) {
	day := calendar.DayOf(wanted, zone)
	minutes := []int{0, wanted.In(zone).Minute()}
	slices.Sort(minutes)
	q.Grid = calendar.Grid{OfHour: slices.Compact(minutes), InBetween: true, AfterMidnight: true}
	var next []FreeTime
	for days := calendar.Day(7); day < calendar.DayOf(wanted, zone)+MaxTimesDays; days *= 2 {
		to := day + days
		q.From, q.To = &day, &to
		found, err := s.times(ctx, sc, q)
		if err != nil {
			return nil, err
		}
		for _, free := range found.Days {
			for _, t := range free.Times {
				if t.Start.Before(wanted) {
					continue
				}
				if next = append(next, t); len(next) == alternatives {
					return next, nil
				}
			}
		}
		day = to + 1
	}
	return next, nil
}
