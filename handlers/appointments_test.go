package handlers_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// day is a day of a clinic in Riyadh, so many from today.
func day(ahead int) string {
	return time.Now().UTC().Add(3*time.Hour).AddDate(0, 0, ahead).Format(time.DateOnly)
}

// appointment asks for one.
func appointment(typeID, date string, military int, more object) object {
	body := object{"type": typeID, "date": date, "time": military}
	for k, v := range more {
		body[k] = v
	}
	return body
}

// schedule asks for an appointment three days from now, from the desk.
func (c *clinic) schedule(typeID string, military int, more object) answer {
	c.t.Helper()
	return c.staff(http.MethodPut, "/management/scheduling/new", appointment(typeID, day(3), military, more))
}

func with(room string) object { return object{"resourceFilters": object{"resource": room}} }

// eventsOf are a booking's events in order, as they were stored.
func (h *house) eventsOf(bookingID string) []models.BookingEvent {
	h.t.Helper()
	var rows []struct {
		Data models.BookingEvent `gorm:"serializer:json"`
	}
	require.NoError(h.t, h.Store.Read(h.t.Context()).Table("events").Select("data").Where("booking_id = ?", bookingID).Order("id").Find(&rows).Error)
	events := make([]models.BookingEvent, len(rows))
	for i, row := range rows {
		events[i] = row.Data
	}
	return events
}

func TestAnAppointmentIsShownAsTheDocumentShowsIt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(object{"minutes": 30})
		room := c.newResource(nil, kind)
		made := c.schedule(kind, 1800, object{
			"resourceFilters": object{"resource": room}, "customerIdentifier": object{"phone": "+966500000001"},
			"note": "Regular appointment", "bookingInfoCustomFields": object{"reason": "checkup"},
		}).ok()
		id := made.str("id")
		for field, want := range (object{
			"status": "CONFIRMED", "startTime": 1800, "startDate": day(3), "startDateTime": day(3) + "T15:00:00.000Z", "endDateTime": day(3) + "T15:30:00.000Z",
			"duration": 30, "typeId": kind, "resourceId": room, "resource.id": room, "customer.phone": "+966500000001", "display.status": "Confirmed",
			"note": "Regular appointment", "info.reason": "checkup", "ticket": "A001", "stage": nil, "queuePosition": nil, "expiresAt": nil,
		}) {
			assert.EqualValues(t, number(want), made.at(field), field)
		}
		assert.Contains(t, made.str("ticketUrl"), "/ticket/"+id+"#")
		events := h.eventsOf(id)
		require.Len(t, events, 1)
		assert.Equal(t, models.EventScheduled, events[0].Type)
		assert.Equal(t, models.ActorStaff, events[0].By)
		assert.Equal(t, room, events[0].ResourceID)
		require.NotNil(t, events[0].StartsAt)
		assert.Equal(t, day(3)+"T15:00:00Z", events[0].StartsAt.UTC().Format(time.RFC3339))

		t.Log("tickets are those of its day, and it stands in no queue")
		assert.Equal(t, "A001", c.join(kind, nil).str("ticket"))
		assert.Equal(t, "A002", c.schedule(kind, 1900, nil).ok().str("ticket"))
		assert.Len(t, c.staff(http.MethodGet, "/management/queue?resourceId="+room, nil).ok().list("result"), 1)
		assert.Len(t, c.staff(http.MethodGet, "/management/bookings/unassigned?resourceId="+room, nil).ok().list("result"), 1)
		c.next(room).ok()
		c.next(room).refused(http.StatusNotFound, models.CodeQueueEmpty)
		c.act("assign", id, object{"resourceId": room}).refused(http.StatusBadRequest, models.CodeAlreadyAssigned)

		t.Log("lists are about its beginning, and can be about its making")
		visits := "/management/bookings?from=" + day(3) + "&to=" + day(3)
		assert.Len(t, c.staff(http.MethodGet, visits, nil).ok().list("result"), 2)
		assert.Empty(t, c.staff(http.MethodGet, visits+"&dateType=createdAt", nil).ok().list("result"))
		assert.Len(t, c.staff(http.MethodGet, "/management/bookings?to="+day(0), nil).ok().list("result"), 1)

		t.Log("a patient makes one too, and their token outlives the wait for it")
		token := c.patient("+966500000002")
		mine := h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: token, body: appointment(kind, day(4), 0, nil)}).ok()
		assert.Equal(t, day(4), mine.str("result.startDate"))
		assert.Equal(t, 0, mine.num("result.startTime"))
		assert.Equal(t, models.ActorCustomer, h.eventsOf(mine.str("result.id"))[0].By)
		assert.Len(t, h.send(request{method: http.MethodGet, path: "/customer/bookings?from=" + day(4), token: token}).ok().list("result"), 1)
		h.exec("UPDATE bookings SET created_at = ? WHERE id = ?", time.Now().UTC().AddDate(0, 0, -3), mine.str("result.id")) // it was made long ago
		ticket := mine.str("result.ticketToken")
		assert.Equal(t, "CONFIRMED", h.send(request{method: http.MethodGet, path: "/customer/bookings/" + mine.str("result.id"), token: ticket}).ok().str("result.status"))
		h.send(request{method: http.MethodGet, path: "/customer/bookings/" + id, token: ticket}).refused(http.StatusNotFound, models.CodeBookingNotFound)
		h.send(request{method: http.MethodPost, path: "/customer/bookings/cancel", token: ticket, body: object{"bookingId": id}}).
			refused(http.StatusNotFound, models.CodeBookingNotFound)
		h.send(request{method: http.MethodPost, path: "/customer/bookings/cancel", token: ticket, body: object{"bookingId": mine.str("result.id")}}).ok()
		last := h.eventsOf(mine.str("result.id"))[1]
		assert.Equal(t, models.EventCanceled, last.Type)
		assert.Equal(t, models.ActorCustomer, last.By, "whoever has the ticket is the customer")
	})
}

func TestAppointmentsOfAResourceDoNotOverlap(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind, long := c.newType(object{"minutes": 30}), c.newType(object{"minutes": 90})
		room, other := c.newResource(object{"category": "x"}, kind, long), c.newResource(nil, kind)
		first := c.schedule(kind, 1000, with(room)).ok().str("id")
		for _, military := range []int{1000, 945, 1015, 931, 1029} {
			c.schedule(kind, military, with(room)).refused(http.StatusConflict, models.CodeSlotTaken)
		}
		c.schedule(long, 930, nil).refused(http.StatusConflict, models.CodeSlotTaken)
		c.schedule(kind, 930, with(room)).ok()
		c.schedule(kind, 1030, with(room)).ok()

		t.Log("without a resource, one that is free is taken")
		c.schedule(kind, 1000, object{"resourceFilters": object{"category": "x"}}).refused(http.StatusConflict, models.CodeSlotTaken)
		assert.Equal(t, other, c.schedule(kind, 1000, nil).ok().str("resourceId"))
		c.schedule(kind, 1000, nil).refused(http.StatusConflict, models.CodeSlotTaken)

		t.Log("whoever does not come, or has been, makes room")
		c.act("cancel", first, nil).ok()
		first = c.schedule(kind, 1000, nil).ok().str("id")
		c.act("noShow", first, nil).ok()
		first = c.schedule(kind, 1000, nil).ok().str("id")
		c.act("start", first, nil).ok()
		c.schedule(kind, 1000, nil).refused(http.StatusConflict, models.CodeSlotTaken)
		c.act("end", first, nil).ok()
		c.schedule(kind, 1000, nil).ok()
	})
}

func TestOneOfManyGetsTheAppointment(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		// Of two types, whose tickets are counted apart.
		kinds := []string{c.newType(object{"minutes": 30}), c.newType(object{"minutes": 20})}
		room := c.newResource(nil, kinds...)
		race := func(n, military int, more object) (won []answer) {
			for _, a := range h.atOnce(n, func(i int) request {
				return request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: appointment(kinds[i%2], day(3), military+i%4*5, more)}
			}) {
				if a.status == http.StatusOK {
					won = append(won, a)
					continue
				}
				a.refused(http.StatusConflict, models.CodeSlotTaken)
			}
			return won
		}
		require.Len(t, race(64, 1000, with(room)), 1)
		rooms := map[string]bool{}
		for range 3 {
			c.newResource(nil, kinds...)
		}
		won := race(16, 1200, nil)
		require.Len(t, won, 4)
		for _, a := range won {
			rooms[a.str("resourceId")] = true
		}
		assert.Len(t, rooms, 4, "each with a resource of its own")
		assert.Equal(t, 5, scalar[int](h, "SELECT count(*) FROM events WHERE type = 'MY_BOOKING_SCHEDULED'"))
		assert.Equal(t, 5, scalar[int](h, "SELECT count(*) FROM bookings"))
	})
}

func TestAnAppointmentIsRescheduled(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(object{"minutes": 30})
		c.newResource(nil, kind)
		room := c.newResource(nil, kind)
		old := c.schedule(kind, 1000, object{
			"resourceFilters": object{"resource": room}, "customerIdentifier": object{"phone": "+966500000001"},
			"note": "By the window", "bookingInfoCustomFields": object{"reason": "checkup"},
		}).ok()
		moved := c.schedule(kind, 1010, object{"rescheduleBookingId": old.str("id")}).ok()
		for field, want := range (object{
			"status": "CONFIRMED", "startTime": 1010, "resourceId": room, "customerId": old.str("customerId"), "note": "By the window", "info.reason": "checkup",
		}) {
			assert.EqualValues(t, number(want), moved.at(field), field)
		}
		assert.NotEqual(t, old.str("id"), moved.str("id"))
		assert.Equal(t, "CANCELED", c.staff(http.MethodGet, "/management/bookings/"+old.str("id"), nil).ok().str("result.status"))
		was, is := h.eventsOf(old.str("id")), h.eventsOf(moved.str("id"))
		require.Len(t, was, 2)
		assert.Equal(t, models.EventCanceled, was[1].Type)
		assert.Equal(t, moved.str("id"), was[1].RescheduledTo)
		assert.Equal(t, models.ActorStaff, was[1].By)
		require.Len(t, is, 1)
		assert.Equal(t, models.EventRescheduled, is[0].Type)
		assert.Equal(t, old.str("id"), is[0].RescheduledFrom)

		t.Log("when the new time is taken, nothing changes")
		c.schedule(kind, 1200, with(room)).ok()
		taken := appointment(kind, day(3), 1200, object{"rescheduleBookingId": moved.str("id"), "resourceFilters": object{"resource": room}})
		h.unchanged(request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: taken}).refused(http.StatusConflict, models.CodeSlotTaken)

		t.Log("a customer moves their own, and nobody else's")
		token, stranger := c.patient("+966500000001"), c.patient("+966500000002")
		again := appointment(kind, day(4), 900, object{"rescheduleBookingId": moved.str("id")})
		h.unchanged(request{method: http.MethodPut, path: "/customer/scheduling/new", token: stranger, body: again}).refused(http.StatusNotFound, models.CodeBookingNotFound)
		mine := h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: token, body: again}).ok()
		assert.Equal(t, models.ActorCustomer, h.eventsOf(mine.str("result.id"))[0].By)
		assert.Equal(t, models.ActorCustomer, h.eventsOf(moved.str("id"))[1].By)
		h.unchanged(request{method: http.MethodPut, path: "/customer/scheduling/new", token: token, body: again}).refused(http.StatusConflict, models.CodeStage)

		t.Log("who can't wait comes another day, and those behind move up")
		first, second := c.join(kind, nil).str("id"), c.join(kind, nil).str("id")
		require.Equal(t, 2, c.position(second))
		later := c.schedule(kind, 1500, object{"rescheduleBookingId": first}).ok()
		assert.Equal(t, 1, c.position(second))
		h.unchanged(request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: joining(kind, object{"rescheduleBookingId": second})}).
			refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		h.unchanged(request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: appointment(kind, day(3), 1600, object{
			"rescheduleBookingId": later.str("id"), "customerIdentifier": object{"phone": "+966500000009"},
		})}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
	})
}

// Each wants the time of the next, all at once: nobody waits for anybody's, and
// nobody gets it.
func TestThoseWhoWantEachOthersTimeKeepTheirs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		const n = 8
		var kinds, ids [n]string
		for i := range n { // of types whose tickets are counted apart
			kinds[i] = c.newType(object{"minutes": 60})
		}
		room := c.newResource(nil, kinds[:]...)
		for i := range n {
			ids[i] = c.schedule(kinds[i], 900+100*i, with(room)).ok().str("id")
		}
		for range 15 {
			for _, a := range h.atOnce(n, func(i int) request {
				return request{
					method: http.MethodPut, path: "/management/scheduling/new", token: c.key,
					body: appointment(kinds[i], day(3), 900+100*((i+1)%n), object{"rescheduleBookingId": ids[i]}),
				}
			}) {
				a.refused(http.StatusConflict, models.CodeSlotTaken)
			}
		}
		assert.Equal(t, n, scalar[int](h, "SELECT count(*) FROM bookings WHERE status = 'CONFIRMED'"))
	})
}

func TestAnAppointmentIsKept(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind, quick := c.newType(object{"minutes": 30}), c.newType(object{"minutes": 5})
		room := c.newResource(nil, kind, quick)
		id := c.schedule(kind, 1000, nil).ok().str("id")
		c.act("end", id, nil).refused(http.StatusConflict, models.CodeStage)
		c.act("recall", id, nil).refused(http.StatusConflict, models.CodeStage)
		c.act("hold", id, nil).refused(http.StatusConflict, models.CodeStage)
		serving := c.act("start", id, nil).ok()
		assert.Equal(t, "SERVING", serving.str("result.stage"))
		assert.Equal(t, day(3)+"T07:00:00.000Z", serving.str("result.startDateTime"))
		c.act("cancel", id, nil).refused(http.StatusConflict, models.CodeStage)
		// Whoever waits is told of the time that visit may still take.
		assert.NotZero(t, c.join(kind, nil).num("estimatedWait.high"))

		h.exec("UPDATE bookings SET starts_at = ?, ends_at = ?, started_at = ? WHERE id = ?", ago(10), ago(-20), ago(9), id)
		done := c.act("end", id, nil).ok()
		assert.Equal(t, "DONE", done.str("result.stage"))
		assert.Equal(t, 10, done.num("result.duration"), "the minutes it took, begun ones whole")
		assert.Equal(t, done.str("result.endedAt"), done.str("result.endDateTime"), "the real end")

		missed := c.schedule(kind, 1100, nil).ok().str("id")
		assert.Equal(t, "NO_SHOW", c.act("noShow", missed, nil).ok().str("result.stage"))
		canceled := c.act("cancel", c.schedule(kind, 1100, nil).ok().str("id"), object{"reason": "The doctor is ill."}).ok()
		assert.Equal(t, "CANCELED", canceled.str("result.status"))
		assert.Equal(t, day(3)+"T08:30:00.000Z", canceled.str("result.endDateTime"))
		assert.Equal(t, 30, canceled.num("result.duration"))
		assert.Equal(t, models.ActorStaff, h.eventsOf(canceled.str("result.id"))[1].By)
		// Estimates take finished appointments in: a minute each, at least.
		for military := 1200; military < 1700; military += 100 {
			id := c.schedule(quick, military, with(room)).ok().str("id")
			c.act("start", id, nil).ok()
			c.act("end", id, nil).ok()
		}
		c.join(quick, nil)
		assert.Equal(t, 2, c.join(quick, nil).num("estimatedWait.likely"), "behind two")
		assert.NotContains(t, h.logged.String(), `"level":"ERROR"`)
	})
}

// ago is a moment some minutes ago, as the database keeps it.
func ago(minutes int) time.Time {
	return time.Now().UTC().Add(-time.Duration(minutes) * time.Minute).Truncate(time.Microsecond)
}

func TestWhatIsNoAppointmentIsRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind, off := c.newType(nil), c.newType(object{"on": false})
		room, closed, away := c.newResource(nil, kind, off), c.newResource(object{"on": false}, kind), c.newResource(nil)
		const missing = "d3q1v5s8k7c0a1b2c3d0"
		for name, test := range map[string]struct {
			body   object
			status int
			code   models.Code
			field  string
		}{
			"no date":                  {object{"type": kind, "time": 900}, 422, models.CodeInvalid, "date"},
			"no time":                  {object{"type": kind, "date": day(3)}, 422, models.CodeInvalid, "time"},
			"no day":                   {appointment(kind, "2030-02-30", 900, nil), 422, models.CodeInvalid, "date"},
			"another form of a day":    {appointment(kind, "11/01/2030", 900, nil), 422, models.CodeInvalid, "date"},
			"an hour too late":         {appointment(kind, day(3), 2400, nil), 422, models.CodeInvalid, "time"},
			"a minute too late":        {appointment(kind, day(3), 1260, nil), 422, models.CodeInvalid, "time"},
			"before midnight":          {appointment(kind, day(3), -1, nil), 422, models.CodeInvalid, "time"},
			"a slip of the hand":       {appointment(kind, "2206-01-11", 900, nil), 422, models.CodeInvalid, "date"},
			"yesterday":                {appointment(kind, day(-1), 900, nil), 422, models.CodePast, ""},
			"an unknown type":          {appointment(missing, day(3), 900, nil), 404, models.CodeTypeMissing, ""},
			"a type that is off":       {appointment(off, day(3), 900, nil), 409, models.CodeTypeOff, ""},
			"an unknown resource":      {appointment(kind, day(3), 900, with(missing)), 404, models.CodeResourceMissing, ""},
			"a resource that is off":   {appointment(kind, day(3), 900, with(closed)), 409, models.CodeResourceOff, ""},
			"who does not serve it":    {appointment(kind, day(3), 900, with(away)), 400, models.CodeTypeMismatch, ""},
			"a category of nobody":     {appointment(kind, day(3), 900, object{"resourceFilters": object{"category": "none"}}), 400, models.CodeTypeMismatch, ""},
			"rescheduling what is not": {appointment(kind, day(3), 900, object{"rescheduleBookingId": missing}), 404, models.CodeBookingNotFound, ""},
		} {
			a := h.unchanged(request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: test.body})
			a.refused(test.status, test.code)
			if test.field != "" {
				assert.Equal(t, []string{test.field}, a.wrongFields(), name)
			}
		}

		t.Log("a provider keeps their own calendar")
		provider := c.member(models.RoleProvider, "+966500000005")
		h.exec("UPDATE resources SET provider_id = (SELECT id FROM members WHERE phone = '+966500000005') WHERE id = ?", room)
		theirs := c.newResource(nil, kind)
		ask := func(more object) answer {
			return h.send(request{method: http.MethodPut, path: "/management/scheduling/new", token: provider, body: appointment(kind, day(3), 900, more)})
		}
		ask(with(theirs)).refused(http.StatusForbidden, models.CodeForbidden)
		assert.Equal(t, room, ask(nil).ok().str("resourceId"))
		ask(nil).refused(http.StatusConflict, models.CodeSlotTaken)
	})
}

// Clocks leap ahead in March, over times that do not exist, and are set back in
// autumn, when they show some times twice.
func TestAppointmentsFollowTheClocksOfTheOrganization(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		year := time.Now().Year() + 1
		sunday := func(month time.Month, from int) string { // the first one from a day on
			day := time.Date(year, month, from, 0, 0, 0, 0, time.UTC)
			return day.AddDate(0, 0, (7-int(day.Weekday()))%7).Format(time.DateOnly)
		}
		type visit struct {
			date     string
			military int
			utc      string // empty: there is no such time
		}
		for zone, visits := range map[string][]visit{
			"America/New_York": {
				{sunday(time.March, 8), 130, "06:30"},
				{sunday(time.March, 8), 230, ""},
				{sunday(time.March, 8), 300, "07:00"},
				{sunday(time.November, 1), 30, "04:30"},
				{sunday(time.November, 1), 130, "05:30"}, // the first of two
				{sunday(time.November, 1), 200, "07:00"},
			},
			"Europe/Berlin": {
				{sunday(time.March, 25), 200, ""},
				{sunday(time.March, 25), 300, "01:00"},
				{sunday(time.October, 25), 230, "00:30"}, // the first of two
				{sunday(time.October, 25), 300, "02:00"},
			},
		} {
			made := h.send(request{method: http.MethodPost, path: "/management/organizations", token: bootstrapKey, body: object{"name": "Uptown", "timezone": zone}}).ok()
			key := h.send(request{method: http.MethodPost, path: "/management/apiKeys", token: bootstrapKey, app: made.str("result.id"), body: object{"name": "desk"}}).ok()
			c := &clinic{house: h, id: made.str("result.id"), key: key.str("result.key")}
			kind := c.newType(object{"minutes": 60})
			for _, v := range visits {
				c.newResource(nil, kind) // so that one is free
				a := c.staff(http.MethodPut, "/management/scheduling/new", appointment(kind, v.date, v.military, nil))
				if v.utc == "" {
					assert.Equal(t, []string{"time"}, a.refused(http.StatusUnprocessableEntity, models.CodeInvalid).wrongFields())
					continue
				}
				assert.Equal(t, fmt.Sprintf("%sT%s:00.000Z", v.date, v.utc), a.ok().str("startDateTime"), "%s %v", zone, v)
				assert.Equal(t, v.military, a.num("startTime"))
				assert.Equal(t, v.date, a.str("startDate"))
				assert.Equal(t, 60, a.num("duration"))
			}
		}
	})
}

// A visit that is over before its planned time has the times that it really had.
func TestAnAppointmentThatEndsBeforeItsTime(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, nil)
		c.hook("bookingEnded", r.url, nil)
		kind := c.newType(object{"minutes": 30})
		room := c.newResource(nil, kind)
		id := c.schedule(kind, 1000, nil).ok().str("id")
		assert.Equal(t, day(3)+"T07:00:00.000Z", c.act("start", id, nil).ok().str("result.startDateTime"), "while it goes on, as planned")
		h.exec("UPDATE bookings SET started_at = ? WHERE id = ?", ago(25), id)
		c.act("end", id, nil).ok()
		done := c.staff(http.MethodGet, "/management/bookings/"+id, nil).ok()
		assert.Equal(t, done.str("result.startedAt"), done.str("result.startDateTime"))
		assert.Equal(t, done.str("result.endedAt"), done.str("result.endDateTime"))
		assert.Equal(t, 26, done.num("result.duration"), "the minutes it took, begun ones whole")
		began, err := time.Parse(time.RFC3339Nano, done.str("result.startDateTime"))
		require.NoError(t, err)
		riyadh := began.Add(3 * time.Hour)
		assert.Equal(t, riyadh.Format(time.DateOnly), done.str("result.startDate"))
		assert.Equal(t, riyadh.Hour()*100+riyadh.Minute(), done.num("result.startTime"))
		told := r.await(1)[0]
		for _, name := range []string{"startsAt", "endsAt"} {
			moment, _ := at(told.body, "data."+name).(string)
			parsed, err := time.Parse(time.RFC3339Nano, moment)
			require.NoError(t, err)
			want := map[string]time.Duration{"startsAt": 25 * time.Minute, "endsAt": 0}[name]
			assert.WithinDuration(t, time.Now().Add(-want), parsed, patience, name)
		}
		again := c.schedule(kind, 1000, nil).ok()
		assert.Equal(t, room, again.str("resourceId"), "the time is free again")
	})
}
