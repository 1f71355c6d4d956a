package calendar

import (
	"slices"
	"time"

	"nowserving/models"
)

// Hours are time rules and off rules, read and ready to be asked. They are safe for
// concurrent use.
type Hours struct {
	// Depth is how many days ahead can be booked.
	Depth int
	// Notice is how many hours ahead at least; -1 is from tomorrow.
	Notice int

	zone  *time.Location
	rules []rule
	off   []offRule
}

// rule is a TimeRule that has been read.
type rule struct {
	weekdays uint8 // bit 0 is Sunday; all bits where the rule names none
	from, to Day
	dated    bool
	recurs   *recurrence // nil: on every day
	types    []string
	slots    []slot
}

// slot is a TimeSlot in minutes since midnight; to is up to a day later.
type slot struct{ from, to int }

// offRule is an OffRule that has been read: its first and last day with the minutes
// of these days.
type offRule struct {
	from, to     Day
	start, until int
	recurs       *recurrence
}

const (
	firstDay Day = -1 << 20 // before every date that is asked for
	lastDay  Day = 1 << 22
	everyDay     = 1<<7 - 1
)

// NewHours reads rules for a time zone. It fails with the field of the first rule that
// is none; the fields begin with "rules" and "offRules".
func NewHours(r models.TimeRules, off []models.OffRule, zone *time.Location) (*Hours, error) {
	h := &Hours{Depth: r.DepthOfDays, Notice: r.ScheduleAfterHoursFromNow, zone: zone}
	for i, one := range r.Rules {
		read, err := readRule(one, field("rules", i))
		if err != nil {
			return nil, err
		}
		h.rules = append(h.rules, read)
	}
	for i, one := range off {
		read, err := readOffRule(one, field("offRules", i))
		if err != nil {
			return nil, err
		}
		h.off = append(h.off, read)
	}
	return h, nil
}

// holds reports whether the rule opens a day for a booking type.
func (r *rule) holds(day Day, typeID string) bool {
	if day < r.from || day > r.to || r.weekdays>>day.Weekday()&1 == 0 {
		return false
	}
	if len(r.types) > 0 && !slices.Contains(r.types, typeID) {
		return false
	}
	return r.recurs == nil || r.recurs.has(day)
}

// opened appends the slots that begin on a day. Rules with dates that hold on the day
// replace the others.
func (h *Hours) opened(spans []Span, day Day, typeID string) []Span {
	for _, dated := range []bool{true, false} {
		found := false
		for i := range h.rules {
			r := &h.rules[i]
			if r.dated != dated || !r.holds(day, typeID) {
				continue
			}
			found = true
			for _, s := range r.slots {
				from, _ := day.Minute(s.from, h.zone)
				to, _ := day.Minute(s.to, h.zone)
				spans = append(spans, Span{from, to})
			}
		}
		if found {
			break
		}
	}
	return spans
}

// Open returns when the days from one to another are open for visits of a booking type,
// in order, without what the off rules close. Slots that begin on the day before count.
func (h *Hours) Open(from, to Day, typeID string) []Span {
	var spans []Span
	for day := from - 1; day <= to; day++ {
		spans = h.opened(spans, day, typeID)
	}
	spans = merge(spans)
	if off := h.closed(from-1, to+1); len(off) > 0 {
		spans = subtract(spans, off)
	}
	return spans
}

// beforeMidnight returns the hours of the days from one to another, with each slot cut at
// the end of the day on which it begins.
func (h *Hours) beforeMidnight(from, to Day, typeID string) []Span {
	var spans []Span
	for day := from; day <= to; day++ {
		end, _ := (day + 1).Minute(0, h.zone)
		for _, s := range h.opened(nil, day, typeID) {
			spans = append(spans, Span{s.From, min(s.To, end)})
		}
	}
	return merge(spans)
}

// closed returns what the off rules close between two days.
func (h *Hours) closed(from, to Day) []Span {
	var spans []Span
	for _, r := range h.off {
		long := r.to - r.from
		add := func(first Day) {
			start, _ := first.Minute(r.start, h.zone)
			until, _ := (first + long).Minute(r.until, h.zone)
			spans = append(spans, Span{start, until})
		}
		if r.recurs == nil {
			if r.from <= to && r.to >= from {
				add(r.from)
			}
			continue
		}
		for _, first := range r.recurs.between(from-long, to) {
			add(first)
		}
	}
	return merge(spans)
}

// Closes reports whether the off rules close any part of a stretch of time.
func (h *Hours) Closes(from, to time.Time) bool {
	s := Span{floorMinute(from), floorMinute(to.Add(time.Minute - 1))}
	return len(intersect(h.closed(DayOf(from, h.zone)-1, DayOf(to, h.zone)+1), []Span{s})) > 0
}

// Bookable returns the span in which a visit may begin that is booked now: Notice and
// Depth.
func (h *Hours) Bookable(now time.Time) Span {
	today := DayOf(now, h.zone)
	end, _ := (today + Day(h.Depth) + 1).Minute(0, h.zone)
	if h.Notice < 0 {
		start, _ := (today + 1).Minute(0, h.zone)
		return Span{start, end}
	}
	at := now.Add(time.Duration(h.Notice) * time.Hour)
	return Span{floorMinute(at.Add(time.Minute - 1)), end}
}
