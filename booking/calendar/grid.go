package calendar

import (
	"slices"
	"strconv"
	"strings"

	"nowserving/models"
)

// Grid says at which times of a day a visit may begin.
type Grid struct {
	// OfHour has the minutes of an hour: 0 and 30 for the hour and the half hour.
	OfHour []int
	// OfDay has minutes of a day.
	OfDay []int
	// InBetween adds times that leave no gap: where the hours or another visit end,
	// and where a visit at such a time would end.
	InBetween bool
	// AfterMidnight includes the part of a slot that is on the next day.
	AfterMidnight bool
}

// maxFixedTimes bounds the fixed times of a day.
const maxFixedTimes = 200

// NewGrid returns the times that options name. It fails with the field showFixedTimes.
func NewGrid(o models.TimeOptions) (Grid, error) {
	said := func(b *bool, otherwise bool) bool {
		if b == nil {
			return otherwise
		}
		return *b
	}
	g := Grid{InBetween: said(o.InBetween, false), AfterMidnight: said(o.AfterMidnight, true)}
	for _, some := range []struct {
		shown   bool
		minutes []int
	}{
		{said(o.Oclock, true), []int{0}},
		{said(o.HalfHour, false), []int{30}},
		{said(o.ThirdHour, false), []int{20, 40}},
		{said(o.QuarterHour, false), []int{15, 45}},
		{said(o.SixthHour, false), []int{10, 50}},
	} {
		if some.shown {
			g.OfHour = append(g.OfHour, some.minutes...)
		}
	}
	slices.Sort(g.OfHour)
	fixed := strings.FieldsFunc(models.Text(o.FixedTimes), func(r rune) bool { return r == ',' || r == ' ' })
	if len(fixed) > maxFixedTimes {
		return g, models.Invalid("showFixedTimes", "Give at most %d times.", maxFixedTimes)
	}
	for _, text := range fixed {
		military, err := strconv.Atoi(text)
		ofDay, ok := OfDay(military, false)
		if err != nil || !ok {
			return g, models.Invalid("showFixedTimes", "Give military times, 0 to 2359, such as 800,1200.")
		}
		g.OfDay = append(g.OfDay, ofDay)
	}
	return g, nil
}
