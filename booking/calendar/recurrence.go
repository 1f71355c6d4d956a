package calendar

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/teambition/rrule-go"
)

// maxYears bounds a recurrence, from its first day. One that has no day within it, such
// as every 30 February, is none.
const maxYears = 40

// recurrence is the days of an RRULE. They are found as they are asked for, and kept.
type recurrence struct {
	mu   sync.Mutex
	next rrule.Next // nil: all are known
	days []Day
}

// newRecurrence reads an RRULE that begins on a day. ok is false if it is none, if it
// names times of a day or if it has no day.
func newRecurrence(text string, from Day) (r *recurrence, ok bool) {
	text = strings.TrimPrefix(text, "RRULE:")
	option, err := rrule.StrToROption(text)
	if err != nil || !wellFormed(text) || option.Freq > rrule.DAILY || !option.Dtstart.IsZero() ||
		len(option.Byhour)+len(option.Byminute)+len(option.Bysecond) > 0 {
		return nil, false
	}
	option.Dtstart = from.utc()
	if end := option.Dtstart.AddDate(maxYears, 0, 0); option.Until.IsZero() || option.Until.After(end) {
		option.Until = end
	}
	rule, err := rrule.NewRRule(*option)
	if err != nil {
		return nil, false
	}
	r = &recurrence{next: rule.Iterator()}
	r.until(from)
	if len(r.days) == 0 {
		r.more()
	}
	return r, len(r.days) > 0
}

// maxNumber bounds the interval and the count of a recurrence.
const maxNumber = 10_000

// wellFormed refuses what RFC 5545 does not allow and the library takes: a part that is
// there twice, an interval or a count that is none, both a count and an end, and Easter.
func wellFormed(text string) bool {
	parts := map[string]string{}
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(part, "=")
		if _, again := parts[name]; again {
			return false
		}
		parts[name] = value
	}
	for _, name := range []string{"INTERVAL", "COUNT"} {
		if value, given := parts[name]; given {
			if n, err := strconv.Atoi(value); err != nil || n < 1 || n > maxNumber {
				return false
			}
		}
	}
	_, counts := parts["COUNT"]
	_, ends := parts["UNTIL"]
	_, easter := parts["BYEASTER"]
	return !easter && (!counts || !ends)
}

// more finds one more day. It reports whether there was one.
func (r *recurrence) more() bool {
	if r.next == nil {
		return false
	}
	t, ok := r.next()
	if !ok {
		r.next = nil
		return false
	}
	r.days = append(r.days, dayOf(t))
	return true
}

// until finds the days up to one.
func (r *recurrence) until(day Day) {
	for len(r.days) == 0 || r.days[len(r.days)-1] < day {
		if !r.more() {
			return
		}
	}
}

// between returns the days from one to another.
func (r *recurrence) between(from, to Day) []Day {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until(to)
	i, _ := slices.BinarySearch(r.days, from)
	j, _ := slices.BinarySearch(r.days, to+1)
	return r.days[i:max(i, j)]
}

// first returns the first day.
func (r *recurrence) first() Day {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.days[0]
}

// has reports whether a day is one of the recurrence.
func (r *recurrence) has(day Day) bool { return len(r.between(day, day)) > 0 }
