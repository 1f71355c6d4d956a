package calendar_test

import (
	"fmt"
	"time"

	"nowserving/booking/calendar"
	"nowserving/models"
)

// In Berlin the clocks go from 2:00 to 3:00 on 28 March 2027, and from 3:00 back to
// 2:00 on 31 October.
func ExampleMoment() {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	for _, at := range []struct {
		day      string
		military int
	}{{"2027-03-28", 130}, {"2027-03-28", 230}, {"2027-10-31", 230}} {
		fmt.Println(calendar.Moment(at.day, at.military, berlin))
	}
	// Output:
	// 2027-03-28 00:30:00 +0000 UTC <nil>
	// 0001-01-01 00:00:00 +0000 UTC REQ-INVALID: The clocks in Europe/Berlin leap over 02:30 on that day.
	// 2027-10-31 00:30:00 +0000 UTC <nil>
}

// A doctor has a visit at ten, and ten minutes to clean the room after each.
func ExampleSearch_Free() {
	hours, err := calendar.NewHours(models.DefaultTimeRules(), nil, time.UTC)
	if err != nil {
		panic(err)
	}
	day, _ := calendar.ParseDay("2026-03-02")
	ten, _ := day.Minute(10*60, time.UTC)
	search := calendar.Search{
		Zone: time.UTC, From: day, To: day,
		Visit:     calendar.Visit{Minutes: 30, After: 10},
		Grid:      calendar.Grid{OfHour: []int{0, 30}},
		Resources: []calendar.Resource{{Hours: hours, Busy: []calendar.Span{{From: ten, To: ten + 40}}}},
	}
	for _, free := range search.Free()[:3] {
		fmt.Println(free.Day, calendar.Military(free.OfDay))
	}
	// Output:
	// 2026-03-02 900
	// 2026-03-02 1100
	// 2026-03-02 1130
}
