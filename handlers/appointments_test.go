package handlers_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestAnAppointmentIsShownAsTheDocumentShowsIt(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"minutes": 30})
		room := c.NewResource(nil, kind)
		made := c.Schedule(kind, 1800, nodetest.Object{
			"resourceFilters": nodetest.Object{"resource": room}, "customerIdentifier": nodetest.Object{"phone": "+966500000001"},
			"note": "Regular appointment", "bookingInfoCustomFields": nodetest.Object{"reason": "checkup"},
		}).OK()
		id := made.Str("id")
		for field, want := range (nodetest.Object{
			"status": "CONFIRMED", "startTime": 1800, "startDate": nodetest.Day(3), "startDateTime": nodetest.Day(3) + "T15:00:00.000Z", "endDateTime": nodetest.Day(3) + "T15:30:00.000Z",
			"duration": 30, "typeId": kind, "resourceId": room, "resource.id": room, "customer.phone": "+966500000001", "display.status": "Confirmed",
			"note": "Regular appointment", "info.reason": "checkup", "ticket": "A001", "stage": nil, "queuePosition": nil, "expiresAt": nil,
		}) {
			assert.EqualValues(t, number(want), made.At(field), field)
		}
		assert.Contains(t, made.Str("ticketUrl"), "/ticket/"+id+"#")
		events := h.EventsOf(id)
		require.Len(t, events, 1)
		assert.Equal(t, models.EventScheduled, events[0].Type)
		assert.Equal(t, models.ActorStaff, events[0].By)
		assert.Equal(t, room, events[0].ResourceID)
		require.NotNil(t, events[0].StartsAt)
		assert.Equal(t, nodetest.Day(3)+"T15:00:00Z", events[0].StartsAt.UTC().Format(time.RFC3339))

		t.Log("tickets are those of its day, and it stands in no queue")
		assert.Equal(t, "A001", c.Join(kind, nil).Str("ticket"))
		assert.Equal(t, "A002", c.Schedule(kind, 1900, nil).OK().Str("ticket"))
		assert.Len(t, c.Staff(http.MethodGet, "/management/queue?resourceId="+room, nil).OK().List("result"), 1)
		assert.Len(t, c.Staff(http.MethodGet, "/management/bookings/unassigned?resourceId="+room, nil).OK().List("result"), 1)
		c.Next(room).OK()
		c.Next(room).Refused(http.StatusNotFound, models.CodeQueueEmpty)
		c.Act("assign", id, nodetest.Object{"resourceId": room}).Refused(http.StatusBadRequest, models.CodeAlreadyAssigned)

		t.Log("lists are about its beginning, and can be about its making")
		visits := "/management/bookings?from=" + nodetest.Day(3) + "&to=" + nodetest.Day(3)
		assert.Len(t, c.Staff(http.MethodGet, visits, nil).OK().List("result"), 2)
		assert.Empty(t, c.Staff(http.MethodGet, visits+"&dateType=createdAt", nil).OK().List("result"))
		assert.Len(t, c.Staff(http.MethodGet, "/management/bookings?to="+nodetest.Day(0), nil).OK().List("result"), 1)

		t.Log("a patient makes one too, and their token outlives the wait for it")
		token := c.Patient("+966500000002")
		mine := h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: token, Body: nodetest.Appointment(kind, nodetest.Day(4), 0, nil)}).OK()
		assert.Equal(t, nodetest.Day(4), mine.Str("result.startDate"))
		assert.Equal(t, 0, mine.Num("result.startTime"))
		assert.Equal(t, models.ActorCustomer, h.EventsOf(mine.Str("result.id"))[0].By)
		assert.Len(t, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings?from=" + nodetest.Day(4), Token: token}).OK().List("result"), 1)
		h.Exec("UPDATE bookings SET created_at = ? WHERE id = ?", time.Now().UTC().AddDate(0, 0, -3), mine.Str("result.id")) // it was made long ago
		ticket := mine.Str("result.ticketToken")
		assert.Equal(t, "CONFIRMED", h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + mine.Str("result.id"), Token: ticket}).OK().Str("result.status"))
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + id, Token: ticket}).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/customer/bookings/cancel", Token: ticket, Body: nodetest.Object{"bookingId": id}}).
			Refused(http.StatusNotFound, models.CodeBookingNotFound)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/customer/bookings/cancel", Token: ticket, Body: nodetest.Object{"bookingId": mine.Str("result.id")}}).OK()
		last := h.EventsOf(mine.Str("result.id"))[1]
		assert.Equal(t, models.EventCanceled, last.Type)
		assert.Equal(t, models.ActorCustomer, last.By, "whoever has the ticket is the customer")
	})
}

func TestAppointmentsOfAResourceDoNotOverlap(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind, long := c.NewType(nodetest.Object{"minutes": 30}), c.NewType(nodetest.Object{"minutes": 90})
		room, other := c.NewResource(nodetest.Object{"category": "x"}, kind, long), c.NewResource(nil, kind)
		first := c.Schedule(kind, 1000, nodetest.With(room)).OK().Str("id")
		for _, military := range []int{1000, 945, 1015, 931, 1029} {
			c.Schedule(kind, military, nodetest.With(room)).Refused(http.StatusConflict, models.CodeSlotTaken)
		}
		c.Schedule(long, 930, nil).Refused(http.StatusConflict, models.CodeSlotTaken)
		c.Schedule(kind, 930, nodetest.With(room)).OK()
		c.Schedule(kind, 1030, nodetest.With(room)).OK()

		t.Log("without a resource, one that is free is taken")
		c.Schedule(kind, 1000, nodetest.Object{"resourceFilters": nodetest.Object{"category": "x"}}).Refused(http.StatusConflict, models.CodeSlotTaken)
		assert.Equal(t, other, c.Schedule(kind, 1000, nil).OK().Str("resourceId"))
		c.Schedule(kind, 1000, nil).Refused(http.StatusConflict, models.CodeSlotTaken)

		t.Log("whoever does not come, or has been, makes room")
		c.Act("cancel", first, nil).OK()
		first = c.Schedule(kind, 1000, nil).OK().Str("id")
		c.Act("noShow", first, nil).OK()
		first = c.Schedule(kind, 1000, nil).OK().Str("id")
		c.Act("start", first, nil).OK()
		c.Schedule(kind, 1000, nil).Refused(http.StatusConflict, models.CodeSlotTaken)
		c.Act("end", first, nil).OK()
		c.Schedule(kind, 1000, nil).OK()
	})
}

func TestOneOfManyGetsTheAppointment(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		// Of two types, whose tickets are counted apart.
		kinds := []string{c.NewType(nodetest.Object{"minutes": 30}), c.NewType(nodetest.Object{"minutes": 20})}
		room := c.NewResource(nil, kinds...)
		race := func(n, military int, more nodetest.Object) (won []nodetest.Response) {
			for _, a := range nodetest.AtOnce(h, n, func(i int) nodetest.Request {
				return nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Appointment(kinds[i%2], nodetest.Day(3), military+i%4*5, more)}
			}) {
				if a.Status == http.StatusOK {
					won = append(won, a)
					continue
				}
				a.Refused(http.StatusConflict, models.CodeSlotTaken)
			}
			return won
		}
		require.Len(t, race(64, 1000, nodetest.With(room)), 1)
		rooms := map[string]bool{}
		for range 3 {
			c.NewResource(nil, kinds...)
		}
		won := race(16, 1200, nil)
		require.Len(t, won, 4)
		for _, a := range won {
			rooms[a.Str("resourceId")] = true
		}
		assert.Len(t, rooms, 4, "each with a resource of its own")
		assert.Equal(t, 5, nodetest.Scalar[int](h, "SELECT count(*) FROM events WHERE type = 'MY_BOOKING_SCHEDULED'"))
		assert.Equal(t, 5, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings"))
	})
}

func TestAnAppointmentIsRescheduled(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"minutes": 30})
		c.NewResource(nil, kind)
		room := c.NewResource(nil, kind)
		old := c.Schedule(kind, 1000, nodetest.Object{
			"resourceFilters": nodetest.Object{"resource": room}, "customerIdentifier": nodetest.Object{"phone": "+966500000001"},
			"note": "By the window", "bookingInfoCustomFields": nodetest.Object{"reason": "checkup"},
		}).OK()
		moved := c.Schedule(kind, 1010, nodetest.Object{"rescheduleBookingId": old.Str("id")}).OK()
		for field, want := range (nodetest.Object{
			"status": "CONFIRMED", "startTime": 1010, "resourceId": room, "customerId": old.Str("customerId"), "note": "By the window", "info.reason": "checkup",
		}) {
			assert.EqualValues(t, number(want), moved.At(field), field)
		}
		assert.NotEqual(t, old.Str("id"), moved.Str("id"))
		assert.Equal(t, "CANCELED", c.Staff(http.MethodGet, "/management/bookings/"+old.Str("id"), nil).OK().Str("result.status"))
		was, is := h.EventsOf(old.Str("id")), h.EventsOf(moved.Str("id"))
		require.Len(t, was, 2)
		assert.Equal(t, models.EventCanceled, was[1].Type)
		assert.Equal(t, moved.Str("id"), was[1].RescheduledTo)
		assert.Equal(t, models.ActorStaff, was[1].By)
		require.Len(t, is, 1)
		assert.Equal(t, models.EventRescheduled, is[0].Type)
		assert.Equal(t, old.Str("id"), is[0].RescheduledFrom)

		t.Log("when the new time is taken, nothing changes")
		c.Schedule(kind, 1200, nodetest.With(room)).OK()
		taken := nodetest.Appointment(kind, nodetest.Day(3), 1200, nodetest.Object{"rescheduleBookingId": moved.Str("id"), "resourceFilters": nodetest.Object{"resource": room}})
		h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: taken}).Refused(http.StatusConflict, models.CodeSlotTaken)

		t.Log("a customer moves their own, and nobody else's")
		token, stranger := c.Patient("+966500000001"), c.Patient("+966500000002")
		again := nodetest.Appointment(kind, nodetest.Day(4), 900, nodetest.Object{"rescheduleBookingId": moved.Str("id")})
		h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: stranger, Body: again}).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		mine := h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: token, Body: again}).OK()
		assert.Equal(t, models.ActorCustomer, h.EventsOf(mine.Str("result.id"))[0].By)
		assert.Equal(t, models.ActorCustomer, h.EventsOf(moved.Str("id"))[1].By)
		h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: token, Body: again}).Refused(http.StatusConflict, models.CodeStage)

		t.Log("who can't wait comes another day, and those behind move up")
		first, second := c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id")
		require.Equal(t, 2, c.Position(second))
		later := c.Schedule(kind, 1500, nodetest.Object{"rescheduleBookingId": first}).OK()
		assert.Equal(t, 1, c.Position(second))
		h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Joining(kind, nodetest.Object{"rescheduleBookingId": second})}).
			Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Appointment(kind, nodetest.Day(3), 1600, nodetest.Object{
			"rescheduleBookingId": later.Str("id"), "customerIdentifier": nodetest.Object{"phone": "+966500000009"},
		})}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
	})
}

// Each customer asks for the time of the next, all at once. No request waits for
// another, and none succeeds.
func TestConcurrentSwapsOfAppointmentsAreAllRefused(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		const n = 8
		var kinds, ids [n]string
		for i := range n { // of types whose tickets are counted apart
			kinds[i] = c.NewType(nodetest.Object{"minutes": 60})
		}
		room := c.NewResource(nil, kinds[:]...)
		for i := range n {
			ids[i] = c.Schedule(kinds[i], 900+100*i, nodetest.With(room)).OK().Str("id")
		}
		for range 15 {
			for _, a := range nodetest.AtOnce(h, n, func(i int) nodetest.Request {
				return nodetest.Request{
					Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key,
					Body: nodetest.Appointment(kinds[i], nodetest.Day(3), 900+100*((i+1)%n), nodetest.Object{"rescheduleBookingId": ids[i]}),
				}
			}) {
				a.Refused(http.StatusConflict, models.CodeSlotTaken)
			}
		}
		assert.Equal(t, n, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings WHERE status = 'CONFIRMED'"))
	})
}

func TestAnAppointmentGoesThroughTheStepsOfAVisit(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind, quick := c.NewType(nodetest.Object{"minutes": 30}), c.NewType(nodetest.Object{"minutes": 5})
		room := c.NewResource(nil, kind, quick)
		id := c.Schedule(kind, 1000, nil).OK().Str("id")
		c.Act("end", id, nil).Refused(http.StatusConflict, models.CodeStage)
		c.Act("recall", id, nil).Refused(http.StatusConflict, models.CodeStage)
		c.Act("hold", id, nil).Refused(http.StatusConflict, models.CodeStage)
		serving := c.Act("start", id, nil).OK()
		assert.Equal(t, "SERVING", serving.Str("result.stage"))
		assert.Equal(t, nodetest.Day(3)+"T07:00:00.000Z", serving.Str("result.startDateTime"))
		c.Act("cancel", id, nil).Refused(http.StatusConflict, models.CodeStage)
		// Whoever waits is told of the time that visit may still take.
		assert.NotZero(t, c.Join(kind, nil).Num("estimatedWait.high"))

		h.Exec("UPDATE bookings SET starts_at = ?, ends_at = ?, started_at = ? WHERE id = ?", ago(10), ago(-20), ago(9), id)
		done := c.Act("end", id, nil).OK()
		assert.Equal(t, "DONE", done.Str("result.stage"))
		assert.Equal(t, 10, done.Num("result.duration"), "the minutes it took, begun ones whole")
		assert.Equal(t, done.Str("result.endedAt"), done.Str("result.endDateTime"), "the real end")

		missed := c.Schedule(kind, 1100, nil).OK().Str("id")
		assert.Equal(t, "NO_SHOW", c.Act("noShow", missed, nil).OK().Str("result.stage"))
		canceled := c.Act("cancel", c.Schedule(kind, 1100, nil).OK().Str("id"), nodetest.Object{"reason": "The doctor is ill."}).OK()
		assert.Equal(t, "CANCELED", canceled.Str("result.status"))
		assert.Equal(t, nodetest.Day(3)+"T08:30:00.000Z", canceled.Str("result.endDateTime"))
		assert.Equal(t, 30, canceled.Num("result.duration"))
		assert.Equal(t, models.ActorStaff, h.EventsOf(canceled.Str("result.id"))[1].By)
		// Estimates take finished appointments in: a minute each, at least.
		for military := 1200; military < 1700; military += 100 {
			id := c.Schedule(quick, military, nodetest.With(room)).OK().Str("id")
			c.Act("start", id, nil).OK()
			c.Act("end", id, nil).OK()
		}
		c.Join(quick, nil)
		assert.Equal(t, 2, c.Join(quick, nil).Num("estimatedWait.likely"), "behind two")
		assert.NotContains(t, h.Log.String(), `"level":"ERROR"`)
	})
}

// ago is a moment some minutes ago, as the database keeps it.
func ago(minutes int) time.Time {
	return time.Now().UTC().Add(-time.Duration(minutes) * time.Minute).Truncate(time.Microsecond)
}

func TestAnInvalidAppointmentIsRefused(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind, off := c.NewType(nil), c.NewType(nodetest.Object{"on": false})
		room, closed, away := c.NewResource(nil, kind, off), c.NewResource(nodetest.Object{"on": false}, kind), c.NewResource(nil)
		const missing = "d3q1v5s8k7c0a1b2c3d0"
		for name, test := range map[string]struct {
			body   nodetest.Object
			status int
			code   models.Code
			field  string
		}{
			"no date":                  {nodetest.Object{"type": kind, "time": 900}, 422, models.CodeInvalid, "date"},
			"no time":                  {nodetest.Object{"type": kind, "date": nodetest.Day(3)}, 422, models.CodeInvalid, "time"},
			"no day":                   {nodetest.Appointment(kind, "2030-02-30", 900, nil), 422, models.CodeInvalid, "date"},
			"another form of a day":    {nodetest.Appointment(kind, "11/01/2030", 900, nil), 422, models.CodeInvalid, "date"},
			"an hour too late":         {nodetest.Appointment(kind, nodetest.Day(3), 2400, nil), 422, models.CodeInvalid, "time"},
			"a minute too late":        {nodetest.Appointment(kind, nodetest.Day(3), 1260, nil), 422, models.CodeInvalid, "time"},
			"before midnight":          {nodetest.Appointment(kind, nodetest.Day(3), -1, nil), 422, models.CodeInvalid, "time"},
			"a slip of the hand":       {nodetest.Appointment(kind, "2206-01-11", 900, nil), 422, models.CodeInvalid, "date"},
			"yesterday":                {nodetest.Appointment(kind, nodetest.Day(-1), 900, nil), 422, models.CodePast, ""},
			"an unknown type":          {nodetest.Appointment(missing, nodetest.Day(3), 900, nil), 404, models.CodeTypeMissing, ""},
			"a type that is off":       {nodetest.Appointment(off, nodetest.Day(3), 900, nil), 409, models.CodeTypeOff, ""},
			"an unknown resource":      {nodetest.Appointment(kind, nodetest.Day(3), 900, nodetest.With(missing)), 404, models.CodeResourceMissing, ""},
			"a resource that is off":   {nodetest.Appointment(kind, nodetest.Day(3), 900, nodetest.With(closed)), 409, models.CodeResourceOff, ""},
			"who does not serve it":    {nodetest.Appointment(kind, nodetest.Day(3), 900, nodetest.With(away)), 400, models.CodeTypeMismatch, ""},
			"a category of nobody":     {nodetest.Appointment(kind, nodetest.Day(3), 900, nodetest.Object{"resourceFilters": nodetest.Object{"category": "none"}}), 400, models.CodeTypeMismatch, ""},
			"rescheduling what is not": {nodetest.Appointment(kind, nodetest.Day(3), 900, nodetest.Object{"rescheduleBookingId": missing}), 404, models.CodeBookingNotFound, ""},
		} {
			a := h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: test.body})
			a.Refused(test.status, test.code)
			if test.field != "" {
				assert.Equal(t, []string{test.field}, a.WrongFields(), name)
			}
		}

		t.Log("a provider keeps their own calendar")
		provider := c.Member(models.RoleProvider, "+966500000005")
		h.Exec("UPDATE resources SET provider_id = (SELECT id FROM members WHERE phone = '+966500000005') WHERE id = ?", room)
		theirs := c.NewResource(nil, kind)
		ask := func(more nodetest.Object) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: provider, Body: nodetest.Appointment(kind, nodetest.Day(3), 900, more)})
		}
		ask(nodetest.With(theirs)).Refused(http.StatusForbidden, models.CodeForbidden)
		assert.Equal(t, room, ask(nil).OK().Str("resourceId"))
		ask(nil).Refused(http.StatusConflict, models.CodeSlotTaken)
	})
}

// Clocks leap ahead in March, over times that do not exist, and are set back in
// autumn, when they show some times twice.
func TestAppointmentsFollowTheClocksOfTheOrganization(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
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
			made := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/management/organizations", Token: nodetest.BootstrapKey, Body: nodetest.Object{"name": "Uptown", "timezone": zone}}).OK()
			key := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/management/apiKeys", Token: nodetest.BootstrapKey, App: made.Str("result.id"), Body: nodetest.Object{"name": "desk"}}).OK()
			c := &nodetest.Clinic{Node: h, ID: made.Str("result.id"), Key: key.Str("result.key")}
			c.Staff(http.MethodPut, "/management/timeRules", nodetest.AlwaysOpen).OK()
			kind := c.NewType(nodetest.Object{"minutes": 60})
			for _, v := range visits {
				c.NewResource(nil, kind) // so that one is free
				a := c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Appointment(kind, v.date, v.military, nil))
				if v.utc == "" {
					assert.Equal(t, []string{"time"}, a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid).WrongFields())
					continue
				}
				assert.Equal(t, fmt.Sprintf("%sT%s:00.000Z", v.date, v.utc), a.OK().Str("startDateTime"), "%s %v", zone, v)
				assert.Equal(t, v.military, a.Num("startTime"))
				assert.Equal(t, v.date, a.Str("startDate"))
				assert.Equal(t, 60, a.Num("duration"))
			}
		}
	})
}

// A visit that ends before its planned time has its real times.
func TestAnAppointmentThatEndsEarlyHasItsRealTimes(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nil)
		c.Hook("bookingEnded", r.URL, nil)
		kind := c.NewType(nodetest.Object{"minutes": 30})
		room := c.NewResource(nil, kind)
		id := c.Schedule(kind, 1000, nil).OK().Str("id")
		assert.Equal(t, nodetest.Day(3)+"T07:00:00.000Z", c.Act("start", id, nil).OK().Str("result.startDateTime"), "while it goes on, as planned")
		h.Exec("UPDATE bookings SET started_at = ? WHERE id = ?", ago(25), id)
		c.Act("end", id, nil).OK()
		done := c.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK()
		assert.Equal(t, done.Str("result.startedAt"), done.Str("result.startDateTime"))
		assert.Equal(t, done.Str("result.endedAt"), done.Str("result.endDateTime"))
		assert.Equal(t, 26, done.Num("result.duration"), "the minutes it took, begun ones whole")
		began, err := time.Parse(time.RFC3339Nano, done.Str("result.startDateTime"))
		require.NoError(t, err)
		riyadh := began.Add(3 * time.Hour)
		assert.Equal(t, riyadh.Format(time.DateOnly), done.Str("result.startDate"))
		assert.Equal(t, riyadh.Hour()*100+riyadh.Minute(), done.Num("result.startTime"))
		told := r.Await(1)[0]
		for _, name := range []string{"startsAt", "endsAt"} {
			moment, _ := nodetest.At(told.Body, "data."+name).(string)
			parsed, err := time.Parse(time.RFC3339Nano, moment)
			require.NoError(t, err)
			want := map[string]time.Duration{"startsAt": 25 * time.Minute, "endsAt": 0}[name]
			assert.WithinDuration(t, time.Now().Add(-want), parsed, nodetest.Patience, name)
		}
		again := c.Schedule(kind, 1000, nil).OK()
		assert.Equal(t, room, again.Str("resourceId"), "the time is free again")
	})
}
