package booking_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/booking"
	"nowserving/booking/calendar"
	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// BenchmarkTimes is what a search for free times costs in a clinic with 200
// appointments a day and, for each resource, weekly hours and a rule for each week of a
// year.
func BenchmarkTimes(b *testing.B) {
	for _, backend := range nodetest.Backends {
		for _, resources := range []int{10, 100} {
			h := nodetest.Start(b, backend)
			c := h.NewClinic()
			typeID := c.NewType(nodetest.Object{"minutes": 20, "leaveMinutesAfter": 10})
			fillCalendar(b, c, typeID, resources)
			for _, days := range []int{1, 60} {
				b.Run(fmt.Sprintf("%s/resources=%d/days=%d", backend, resources, days), func(b *testing.B) {
					from := calendar.DayOf(time.Now(), time.UTC) + 1
					to := from + calendar.Day(days) - 1
					q := booking.TimesQuery{TypeID: typeID, From: &from, To: &to, Offered: true, Grid: calendar.Grid{OfHour: []int{0, 30}, AfterMidnight: true}}
					sc := booking.Scope{OrganizationID: c.ID}
					for b.Loop() {
						found, err := h.Bookings.Times(b.Context(), sc, q)
						require.NoError(b, err)
						require.Len(b, found.Days, days)
					}
				})
			}
		}
	}
}

// fillCalendar makes resources with a year of rules, and 200 appointments a day for 60
// days.
func fillCalendar(b *testing.B, c *nodetest.Clinic, typeID string, resources int) {
	b.Helper()
	today := calendar.DayOf(time.Now(), time.UTC)
	rules := models.TimeRules{DepthOfDays: 365, Rules: []models.TimeRule{{
		ID: "weekly", Weekdays: []int{0, 1, 2, 3, 4, 5, 6}, Slots: []models.TimeSlot{{From: 800, To: 1200}, {From: 1300, To: 1900}},
	}}}
	for week := range calendar.Day(52) {
		first := today + 7*week
		rules.Rules = append(rules.Rules, models.TimeRule{
			ID: first.String(), From: first.String(), To: (first + 2).String(), Slots: []models.TimeSlot{{From: 700, To: 1500}},
		})
	}
	require.NoError(b, c.Store.Tx(b.Context(), func(tx *store.Tx) error {
		customer := models.Customer{ID: models.NewID(), OrganizationID: c.ID, CreatedAt: tx.Now, UpdatedAt: tx.Now}
		if err := tx.Create(&customer).Error; err != nil {
			return err
		}
		rooms := make([]string, resources)
		for i := range rooms {
			r := models.Resource{
				ID: models.NewID(), OrganizationID: c.ID, Name: "Room", On: true, Activated: true, BookFromWebsite: true, CreatedAt: tx.Now, UpdatedAt: tx.Now,
			}
			rooms[i] = r.ID
			if err := tx.Create(&r).Error; err != nil {
				return err
			}
			if err := tx.Exec("INSERT INTO resource_types (organization_id, resource_id, type_id) VALUES (?, ?, ?)", c.ID, r.ID, typeID).Error; err != nil {
				return err
			}
			own := models.Calendar{OrganizationID: c.ID, ResourceID: r.ID, TimeRules: &rules, Version: 1, UpdatedAt: tx.Now}
			if err := tx.Create(&own).Error; err != nil {
				return err
			}
		}
		var booked []models.Booking
		for day := range calendar.Day(60) {
			for n := range 200 {
				starts := (today + 1 + day).Start(time.UTC).Add(5*time.Hour + time.Duration(n/resources)*30*time.Minute)
				ends := starts.Add(20 * time.Minute)
				booked = append(booked, models.Booking{
					ID: models.NewID(), OrganizationID: c.ID, CustomerID: customer.ID, TypeID: typeID, ResourceID: &rooms[n%resources],
					Status: models.StatusConfirmed, StartsAt: &starts, EndsAt: &ends, LocalDay: (today + 1 + day).String(), Ticket: fmt.Sprintf("A%03d", n),
					Version: 1, AssignmentTimeout: 60, CreatedAt: tx.Now, UpdatedAt: tx.Now,
				})
			}
		}
		return tx.CreateInBatches(booked, 200).Error
	}))
	if c.Store.Postgres() {
		c.Exec("ANALYZE bookings")
	}
}
