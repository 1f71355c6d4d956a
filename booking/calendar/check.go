package calendar

import (
	"slices"
	"strconv"
	"time"

	"nowserving/models"
)

func field(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// anchor is the day on which a recurrence without a first day begins: a Monday, and
// the first day of a month and a year.
var anchor = func() Day { d, _ := ParseDay("2018-01-01"); return d }()

const maxRRule = 500 // characters

// readRule reads one time rule, whose field has a name.
func readRule(one models.TimeRule, name string) (rule, error) {
	r := rule{from: firstDay, to: lastDay, types: one.Types, dated: one.From != "" || one.To != ""}
	var ok bool
	if one.From != "" {
		if r.from, ok = ParseDay(one.From); !ok {
			return r, models.Invalid(name+".from", "Give a day such as 2026-01-31.")
		}
	}
	if one.To != "" {
		if r.to, ok = ParseDay(one.To); !ok {
			return r, models.Invalid(name+".to", "Give a day such as 2026-01-31.")
		}
	}
	if r.to < r.from {
		return r, models.Invalid(name+".to", "The rule ends before it begins.")
	}
	for i, day := range one.Weekdays {
		if day < 0 || day > 6 {
			return r, models.Invalid(field(name+".weekdays", i), "A day of the week is 0 (Sunday) to 6.")
		}
		r.weekdays |= 1 << day
	}
	if len(one.Weekdays) == 0 {
		if !r.dated && one.RRule == "" {
			return r, models.Invalid(name+".weekdays", "The rule has no days: give weekdays, dates or an rrule.")
		}
		r.weekdays = everyDay
	}
	if len(one.Slots) == 0 || len(one.Slots) > models.MaxSlotsOfARule {
		return r, models.Invalid(name+".slots", "Give 1 to %d slots.", models.MaxSlotsOfARule)
	}
	for i, s := range one.Slots {
		from, ok := OfDay(s.From, false)
		if !ok {
			return r, models.Invalid(field(name+".slots", i)+".from", "Give a military time, 0 to 2359, such as 1820 for 18:20.")
		}
		to, ok := OfDay(s.To, true)
		if !ok {
			return r, models.Invalid(field(name+".slots", i)+".to", "Give a military time, 0 to 2400, such as 1820 for 18:20.")
		}
		if to <= from {
			to += minutesOfDay
		}
		r.slots = append(r.slots, slot{from, to})
	}
	if one.RRule != "" {
		first := r.from
		if one.From == "" {
			first = anchor
		}
		if r.recurs, ok = newRecurrence(one.RRule, first); !ok || len(one.RRule) > maxRRule {
			return r, models.Invalid(name+".rrule", "Give a recurrence of days as in RFC 5545, such as FREQ=MONTHLY;BYDAY=1MO.")
		}
	}
	if !r.everHolds() {
		return r, models.Invalid(name, "No day matches the rule.")
	}
	return r, nil
}

// everHolds reports whether any day matches the rule.
func (r *rule) everHolds() bool {
	if r.recurs == nil {
		for day := r.from; day <= r.to && day < r.from+7; day++ {
			if r.weekdays>>day.Weekday()&1 == 1 {
				return true
			}
		}
		return false
	}
	for _, day := range r.recurs.between(r.from, min(r.to, r.recurs.first()+maxYears*366)) {
		if r.weekdays>>day.Weekday()&1 == 1 {
			return true
		}
	}
	return false
}

// readOffRule reads one off rule, whose field has a name.
func readOffRule(one models.OffRule, name string) (offRule, error) {
	var r offRule
	var ok bool
	if r.from, ok = ParseDay(one.From); !ok {
		return r, models.Invalid(name+".from", "Give a day such as 2026-01-31.")
	}
	r.to = r.from
	if one.To != "" {
		if r.to, ok = ParseDay(one.To); !ok {
			return r, models.Invalid(name+".to", "Give a day such as 2026-01-31.")
		}
	}
	if r.to < r.from {
		return r, models.Invalid(name+".to", "The rule ends before it begins.")
	}
	if one.FromTime != nil {
		if r.start, ok = OfDay(*one.FromTime, false); !ok {
			return r, models.Invalid(name+".fromTime", "Give a military time, 0 to 2359, such as 1820 for 18:20.")
		}
	}
	r.until = minutesOfDay
	if one.ToTime != nil {
		if r.until, ok = OfDay(*one.ToTime, true); !ok {
			return r, models.Invalid(name+".toTime", "Give a military time, 0 to 2400, such as 1820 for 18:20.")
		}
	}
	if r.from == r.to && r.until <= r.start {
		return r, models.Invalid(name+".toTime", "The rule ends before it begins: one that goes past midnight ends on the next day.")
	}
	if one.RRule != "" {
		if r.recurs, ok = newRecurrence(one.RRule, r.from); !ok || len(one.RRule) > maxRRule {
			return r, models.Invalid(name+".rrule", "Give a recurrence of days as in RFC 5545, such as FREQ=YEARLY.")
		}
	}
	return r, nil
}

// CheckRules fails with the field of the first rule that is none, that no day matches
// or that overlaps another, and gives an id to rules without one.
func CheckRules(r *models.TimeRules) error {
	switch {
	case r.DepthOfDays < 0 || r.DepthOfDays > models.MaxDepthOfDays:
		return models.Invalid("depthOfDays", "Give 0 to %d days.", models.MaxDepthOfDays)
	case r.ScheduleAfterHoursFromNow < -1 || r.ScheduleAfterHoursFromNow > models.MaxNoticeHours:
		return models.Invalid("scheduleAfterHoursFromNow", "Give -1 (from tomorrow) to %d hours.", models.MaxNoticeHours)
	case len(r.Rules) > models.MaxTimeRules:
		return models.Invalid("rules", "Give at most %d rules.", models.MaxTimeRules)
	}
	h, err := NewHours(*r, nil, time.UTC)
	if err != nil {
		return err
	}
	if err := nameAll(len(r.Rules), "rules", func(i int) *string { return &r.Rules[i].ID }); err != nil {
		return err
	}
	return h.checkOverlaps()
}

// CheckOffRules is CheckRules for off rules, which may overlap: a holiday may fall
// into a vacation.
func CheckOffRules(off []models.OffRule) error {
	if len(off) > models.MaxOffRules {
		return models.Invalid("offRules", "Give at most %d rules.", models.MaxOffRules)
	}
	if _, err := NewHours(models.TimeRules{}, off, time.UTC); err != nil {
		return err
	}
	return nameAll(len(off), "offRules", func(i int) *string { return &off[i].ID })
}

// nameAll gives ids to rules without one and refuses an id that is there twice.
func nameAll(n int, list string, id func(i int) *string) error {
	seen := map[string]bool{}
	for i := range n {
		if *id(i) == "" {
			*id(i) = models.NewID()
		}
		if seen[*id(i)] {
			return models.Invalid(field(list, i)+".id", "Another rule has this id.")
		}
		seen[*id(i)] = true
	}
	return nil
}

// Two rules meet first where the later of them begins. What weekdays allow is seen
// within a week from there, what recurrences allow mostly within a year.
const (
	overlapDays       = 8
	overlapDaysRecurs = 400
)

// checkOverlaps refuses two slots that are open at once for a booking type by rules of
// which neither replaces the other.
func (h *Hours) checkOverlaps() error {
	recurs := slices.ContainsFunc(h.rules, func(r rule) bool { return r.recurs != nil })
	checked := map[Day]bool{}
	for i := range h.rules {
		first := h.rules[i].from
		if first == firstDay {
			first = anchor
		}
		days := Day(overlapDays)
		if recurs {
			days = overlapDaysRecurs
		}
		for day := first; day < first+days; day++ {
			if checked[day] {
				continue
			}
			checked[day] = true
			if err := h.checkDay(day); err != nil {
				return err
			}
		}
	}
	return nil
}

// placed is a slot on a day.
type placed struct {
	Span
	rule, slot int
}

// checkDay looks for slots that overlap on a day or run into the next.
func (h *Hours) checkDay(day Day) error {
	for _, dated := range []bool{true, false} {
		var open []placed
		for _, d := range []Day{day, day + 1} {
			for i := range h.rules {
				r := &h.rules[i]
				if r.dated != dated || !r.matches(d) {
					continue
				}
				for k, s := range r.slots {
					start := int64(d) * minutesOfDay
					open = append(open, placed{Span{start + int64(s.from), start + int64(s.to)}, i, k})
				}
			}
		}
		for n, a := range open {
			for _, b := range open[:n] {
				if a.From < b.To && b.From < a.To && shareType(h.rules[a.rule].types, h.rules[b.rule].types) {
					later := a
					if b.rule > a.rule || b.rule == a.rule && b.slot > a.slot {
						later = b
					}
					return models.Invalid(field(field("rules", later.rule)+".slots", later.slot),
						"The slot overlaps another, on %s for instance.", Day(max(a.From, b.From)/minutesOfDay))
				}
			}
		}
	}
	return nil
}

// matches is holds for any booking type.
func (r *rule) matches(day Day) bool {
	ofAll := *r
	ofAll.types = nil
	return ofAll.holds(day, "")
}

func shareType(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(id string) bool { return slices.Contains(b, id) })
}

// CheckTypes refuses rules for booking types that are not among known.
func CheckTypes(r models.TimeRules, known []string) error {
	for i, one := range r.Rules {
		for k, id := range one.Types {
			if !slices.Contains(known, id) {
				return models.Invalid(field(field("rules", i)+".types", k), "There is no booking type %s in the organization.", strconv.Quote(id))
			}
		}
	}
	return nil
}
