package handlers_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// request is a customer's request for an appointment three days from now.
func request(token, typeID string, military int, more nodetest.Object) nodetest.Request {
	return nodetest.Request{
		Method: http.MethodPut, Path: "/customer/scheduling/new", Token: token,
		Body: nodetest.Appointment(typeID, nodetest.Day(3), military, more),
	}
}

func TestAppointmentOfACustomer_WaitsForPaymentOrApprovalUnlessItIsConfirmedByItself(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		patient := c.Patient("+966500000051")
		for i, one := range []struct {
			kind nodetest.Object
			want models.Status
		}{
			{nodetest.Object{"autoConfirm": true}, models.StatusConfirmed},
			{nodetest.Object{"autoConfirm": false}, models.StatusPendingApproval},
			{nodetest.Object{"autoConfirm": false, "price": "10.00", "paymentMethods": []string{"manual"}}, models.StatusPendingApproval},
			{nodetest.Object{"autoConfirm": false, "price": "10.00", "paymentMethods": []string{"creditCard"}}, models.StatusPendingPayment},
			{nodetest.Object{"autoConfirm": true, "price": "10.00", "paymentMethods": []string{"creditCard"}}, models.StatusPendingPayment},
		} {
			kind := c.NewType(one.kind)
			c.NewResource(nil, kind)
			assert.Equal(t, string(one.want), h.Send(request(patient, kind, 800+100*i, nil)).OK().Str("result.status"), "%v", one.kind)
			byDesk := c.Schedule(kind, 1600, nil).OK()
			assert.Equal(t, "CONFIRMED", byDesk.Str("status"), "%v", one.kind)
		}
	})
}

func TestAppointmentThatWaitsForApproval_HoldsItsTimeUntilItIsRejected(t *testing.T) {
	t.Parallel()
	f := nodetest.NewFCM(t)
	nodetest.OnBothWith(t, func(c *node.Config) { f.Pushing(c); nodetest.AllowPrivate(c) }, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"autoConfirm": false})
		c.NewResource(nil, visit)
		receiver := nodetest.NewReceiver(t, nodetest.Answering(http.StatusOK))
		for _, trigger := range []string{"newBooking", "newAppointment", "bookingRejected"} {
			c.Hook(trigger, receiver.URL, nil)
		}
		patient, other := c.Patient("+966500000051"), c.Patient("+966500000052")
		phone := "phone of " + c.ID
		h.Device(patient, phone, "en").OK()

		first := h.Send(request(patient, visit, 1000, nil)).OK().Str("result.id")
		h.Send(request(other, visit, 1000, nil)).Refused(http.StatusConflict, models.CodeSlotTaken)
		rejected := c.Act("reject", first, nodetest.Object{"reason": "Away"}).OK()
		assert.Equal(t, "REJECTED", rejected.Str("result.status"))
		assert.Equal(t, "Rejected", rejected.Str("result.display.status"))
		c.Act("reject", first, nil).Refused(http.StatusConflict, models.CodeStage)
		c.Act("approve", first, nil).Refused(http.StatusConflict, models.CodeStage)

		second := h.Send(request(patient, visit, 1000, nil)).OK().Str("result.id")
		assert.Equal(t, "CONFIRMED", c.Act("approve", second, nil).OK().Str("result.status"))
		assert.Equal(t, models.ReminderDayBefore, nodetest.Scalar[models.Reminder](h, "SELECT reminder_next FROM bookings WHERE id = ?", second))
		c.Act("approve", second, nil).Refused(http.StatusConflict, models.CodeStage)

		f.Await(phone, string(models.EventRejected), 1)
		assert.Equal(t, second, f.Await(phone, string(models.EventConfirmed), 1).Data["bookingId"])
		told := map[string][]string{}
		for _, a := range receiver.Await(4) {
			told[a.Trigger()] = append(told[a.Trigger()], fmt.Sprint(nodetest.At(a.Body, "id")))
		}
		assert.ElementsMatch(t, []string{first, second}, told["newBooking"])
		assert.Equal(t, []string{second}, told["newAppointment"])
		assert.Equal(t, []string{first}, told["bookingRejected"])
	})
}

func TestTemporaryAppointment_IsDeletedUnlessItIsConfirmed(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nil)
		c.NewResource(nil, visit)
		patient := c.Patient("+966500000051")
		reserve := func(military int, more nodetest.Object) nodetest.Request {
			body := nodetest.Appointment(visit, nodetest.Day(3), military, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000051"}})
			for k, v := range more {
				body[k] = v
			}
			return nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/temporary", Token: c.Key, Body: body}
		}
		for _, minutes := range []any{0, 1441, -1, 1.5, "15"} {
			h.Unchanged(reserve(900, nodetest.Object{"reservedForMinutes": minutes})).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		}
		before := time.Now()
		kept := h.Send(reserve(900, nil)).OK()
		until, err := time.Parse(time.RFC3339, kept.Str("reservedUntil"))
		require.NoError(t, err)
		assert.WithinDuration(t, before.Add(15*time.Minute), until, time.Minute)
		assert.Equal(t, "CONFIRMED", kept.Str("status"))
		gone := h.Send(reserve(1000, nodetest.Object{"reservedForMinutes": 1})).OK().Str("id")
		h.Unchanged(reserve(1000, nil)).Refused(http.StatusConflict, models.CodeSlotTaken)
		c.Act("start", gone, nil).Refused(http.StatusConflict, models.CodeStage)
		assert.Empty(t, h.EventsOf(gone), "it was told of to no one")

		confirm := func(id string) nodetest.Response {
			return c.Staff(http.MethodPost, "/management/scheduling/confirm", nodetest.Object{"bookingId": id})
		}
		confirmed := confirm(kept.Str("id")).OK()
		assert.Nil(t, confirmed.At("result.reservedUntil"))
		events := h.EventsOf(kept.Str("id"))
		require.Len(t, events, 1)
		assert.Equal(t, models.EventScheduled, events[0].Type)
		confirm(kept.Str("id")).Refused(http.StatusConflict, models.CodeStage)

		h.Exec("UPDATE bookings SET reserved_until = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), gone)
		require.Eventually(t, func() bool {
			return nodetest.Scalar[int](h, "SELECT count(*) FROM bookings WHERE id = ?", gone) == 0
		}, nodetest.Patience, 10*time.Millisecond)
		confirm(gone).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		mine := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings", Token: patient}).OK()
		assert.Equal(t, []string{kept.Str("id")}, mine.Pluck("result", "id"))
		h.Send(reserve(1000, nil)).OK()
	})
}

func TestManyRequestsForOneTime_OneWinsAndTheOthersHearOfFreeTimes(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 30})
		room := c.NewResource(nil, visit)
		c.Staff(http.MethodPut, "/management/timeRules", nodetest.Object{"rules": []any{rule(900, 1200)}}).OK()
		answers := nodetest.AtOnce(h, 64, func(int) nodetest.Request {
			return nodetest.Request{
				Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Appointment(visit, nodetest.Day(3), 1100, nil),
			}
		})
		won := 0
		for _, a := range answers {
			if a.Status == http.StatusOK {
				won++
				continue
			}
			a.Refused(http.StatusConflict, models.CodeSlotTaken)
			require.Len(t, a.List("alternatives"), 3)
			assert.Equal(t, nodetest.Day(3), a.Str("alternatives.0.date"))
			assert.Equal(t, 1130, a.Num("alternatives.0.time"))
			assert.Equal(t, nodetest.Day(4), a.Str("alternatives.1.date"))
			assert.Equal(t, 900, a.Num("alternatives.1.time"))
			assert.Equal(t, []any{room}, a.At("alternatives.0.resources"))
		}
		assert.Equal(t, 1, won)
	})
}

func TestAppointment_IsRefusedOutsideTheTimeRulesUnlessTheDeskInsists(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 60})
		room := c.NewResource(nil, visit)
		c.Staff(http.MethodPut, "/management/timeRules/"+room, nodetest.Object{
			"depthOfDays": 10, "scheduleAfterHoursFromNow": 48, "rules": []any{rule(900, 1700)},
		}).OK()
		patient := c.Patient("+966500000051")
		for _, one := range []struct {
			day      string
			military int
			status   int
			code     models.Code
			field    string
		}{
			{nodetest.Day(3), 830, http.StatusConflict, models.CodeOutsideHours, "time"},
			{nodetest.Day(3), 1630, http.StatusConflict, models.CodeOutsideHours, "time"},
			{nodetest.Day(1), 1000, http.StatusConflict, models.CodeTooEarly, "time"},
			{nodetest.Day(11), 1000, http.StatusConflict, models.CodeTooLate, "date"},
			{nodetest.Day(-1), 1000, http.StatusUnprocessableEntity, models.CodePast, "time"},
			{nodetest.Day(3), 2460, http.StatusUnprocessableEntity, models.CodeInvalid, "time"},
			{"2026-02-30", 1000, http.StatusUnprocessableEntity, models.CodeInvalid, "date"},
			{"tomorrow", 1000, http.StatusUnprocessableEntity, models.CodeInvalid, "date"},
		} {
			body := nodetest.Appointment(visit, one.day, one.military, nil)
			byCustomer := nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient, Body: body}
			byDesk := nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: body}
			for _, r := range []nodetest.Request{byCustomer, byDesk} {
				assert.Equal(t, []string{one.field}, h.Unchanged(r).Refused(one.status, one.code).WrongFields(), "%s %d", one.day, one.military)
			}
			body["showAll"] = true
			h.Unchanged(byCustomer).Refused(one.status, one.code)
			if one.status == http.StatusConflict {
				h.Send(byDesk).OK()
			} else {
				h.Unchanged(byDesk).Refused(one.status, one.code)
			}
		}
	})
}

func TestBuffers_KeepVisitsApartFromBothSides(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(_ *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 30, "leaveMinutesBefore": 5, "leaveMinutesAfter": 10})
		c.NewResource(nil, visit)
		c.Schedule(visit, 1000, nil).OK()
		for _, military := range []int{916, 930, 945, 1000, 1030, 1040, 1044} {
			c.Schedule(visit, military, nil).Refused(http.StatusConflict, models.CodeSlotTaken)
		}
		c.Schedule(visit, 1045, nil).OK()
		c.Schedule(visit, 915, nil).OK()
	})
}

func TestCustomer_CannotBeAtTwoAppointmentsAtOnce(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 30})
		c.NewResource(nil, visit)
		c.NewResource(nil, visit)
		patient := c.Patient("+966500000051")
		h.Send(request(patient, visit, 1000, nil)).OK()
		assert.Equal(t, []string{"time"}, h.Unchanged(request(patient, visit, 1015, nil)).Refused(http.StatusConflict, models.CodeOwnOverlap).WrongFields())
		h.Send(request(patient, visit, 1015, nodetest.Object{"firstName": "Their", "lastName": "Child"})).OK()
		h.Send(request(patient, visit, 1030, nil)).OK()
	})
}

func TestOffRule_OverAppointmentsChangesNothingUntilItIsForced(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 60})
		room, other := c.NewResource(nil, visit), c.NewResource(nil, visit)
		booked := c.Schedule(visit, 1000, nodetest.With(room)).OK().Str("id")
		day := nodetest.Day(3)
		put := func(path string, force bool, rules ...any) nodetest.Request {
			if rules == nil {
				rules = []any{}
			}
			return nodetest.Request{Method: http.MethodPut, Path: "/management/offRules" + path, Token: c.Key, Body: nodetest.Object{"rules": rules, "force": force}}
		}
		holiday := nodetest.Object{"name": "Holiday", "from": day}
		lunch := nodetest.Object{"name": "Lunch", "from": day, "fromTime": 1200, "toTime": 1300}
		for _, path := range []string{"", "/" + room} {
			refused := h.Unchanged(put(path, false, holiday)).Refused(http.StatusConflict, models.CodeBooked)
			assert.Equal(t, []any{booked}, refused.At("bookings"))
		}
		h.Send(put("/"+room, false, lunch)).OK()
		assert.NotContains(t, times(c, visit, day, nodetest.With(room)), 1200)
		h.Send(put("/"+other, false, holiday)).OK()
		assert.Empty(t, times(c, visit, day, nodetest.With(other)))

		h.Send(put("/"+room, true, holiday)).OK()
		assert.Empty(t, times(c, visit, day, nodetest.With(room)))
		assert.Equal(t, "CONFIRMED", c.Staff(http.MethodGet, "/management/bookings/"+booked, nil).OK().Str("result.status"))
		h.Send(put("/"+room, false, holiday, lunch)).OK() // the time was closed before
		assert.Equal(t, []any{}, h.Send(put("/"+room, false)).OK().At("result.rules"), "without rules of its own it follows the organization's")
		h.Send(put("", true, holiday)).OK()
		assert.Empty(t, times(c, visit, day, nodetest.With(room)))
	})
}

func TestDeletingWhatHasAppointments_SaysHowManyItWouldCancel(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		for _, one := range []struct {
			path string
			code models.Code
		}{{"/management/types/", models.CodeTypeInUse}, {"/management/resources/", models.CodeResourceInUse}} {
			visit := c.NewType(nil)
			room := c.NewResource(nil, visit)
			first, second := c.Schedule(visit, 1000, nil).OK().Str("id"), c.Schedule(visit, 1100, nil).OK().Str("id")
			path := one.path + visit
			if one.code == models.CodeResourceInUse {
				path = one.path + room
			}
			remove := nodetest.Request{Method: http.MethodDelete, Path: path, Token: c.Key}
			refused := h.Unchanged(remove).Refused(http.StatusConflict, one.code)
			assert.Equal(t, []any{first, second}, refused.At("bookings"))
			assert.Contains(t, refused.Str("detail"), "2 appointments")
			remove.Path += "?cancel=true"
			h.Send(remove).OK()
			for _, id := range []string{first, second} {
				assert.Equal(t, "CANCELED", c.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK().Str("result.status"))
			}
		}
	})
}

func TestDeletedType_IsTakenOutOfTheTimeRules(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kept, gone := c.NewType(nil), c.NewType(nil)
		both, alone := rule(900, 1000), rule(1000, 1100)
		both["types"], alone["types"] = []string{gone, kept}, []string{gone}
		c.Staff(http.MethodPut, "/management/timeRules", nodetest.Object{"rules": []any{both, alone, rule(1100, 1200)}}).OK()
		c.Staff(http.MethodDelete, "/management/types/"+gone, nil).OK()
		left := c.Staff(http.MethodGet, "/management/timeRules", nil).OK()
		require.Len(t, left.List("result.rules"), 2)
		assert.Equal(t, []any{kept}, left.At("result.rules.0.types"))
		c.Staff(http.MethodPut, "/management/timeRules", nodetest.Object{"rules": left.At("result.rules")}).OK()
	})
}

func TestBuffers_AreBounded(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	c := h.NewClinic()
	for _, minutes := range []float64{1441, 160_000_000, 1e19} {
		r := nodetest.Request{Method: http.MethodPost, Path: "/management/types", Token: c.Key, Body: nodetest.Object{"name": "Long", "minutes": 30, "leaveMinutesAfter": minutes}}
		assert.Equal(t, []string{"leaveMinutesAfter"}, h.Unchanged(r).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).WrongFields())
	}
}

func TestRescheduling_FreesTheOldTimeForItself(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 60})
		c.NewResource(nil, visit)
		patient := c.Patient("+966500000051")
		made := h.Send(request(patient, visit, 1000, nil)).OK()
		c.Schedule(visit, 1130, nil).OK()
		half := nodetest.Object{"showHalfHour": true}
		assert.NotContains(t, times(c, visit, nodetest.Day(3), half), 1030)
		half["rescheduleBookingId"] = made.Str("result.id")
		assert.Contains(t, times(c, visit, nodetest.Day(3), half), 1030)
		assert.Contains(t, times(c, visit, nodetest.Day(3), half), 1000)

		move := func(token string, military int) nodetest.Request {
			return nodetest.Request{Method: http.MethodPost, Path: "/customer/bookings/reschedule", Token: token, Body: nodetest.Object{
				"bookingId": made.Str("result.id"), "date": nodetest.Day(3), "time": military,
			}}
		}
		h.Unchanged(move(patient, 1100)).Refused(http.StatusConflict, models.CodeSlotTaken)
		h.Unchanged(move(c.Patient("+966500000052"), 1030)).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		moved := h.Send(move(made.Str("result.ticketToken"), 1030)).OK()
		assert.Equal(t, 1030, moved.Num("result.startTime"))
		old := c.Staff(http.MethodGet, "/management/bookings/"+made.Str("result.id"), nil).OK()
		assert.Equal(t, "CANCELED", old.Str("result.status"))
		last := func(id string) models.BookingEvent {
			events := h.EventsOf(id)
			return events[len(events)-1]
		}
		assert.Equal(t, moved.Str("result.id"), last(made.Str("result.id")).RescheduledTo)

		// Of a temporary appointment no one hears, so the old one is told to be canceled.
		c.Staff(http.MethodPut, "/management/scheduling/temporary", nodetest.Appointment(visit, nodetest.Day(3), 1400, nodetest.Object{
			"rescheduleBookingId": moved.Str("result.id"),
		})).OK()
		canceled := last(moved.Str("result.id"))
		assert.Equal(t, models.EventCanceled, canceled.Type)
		assert.Empty(t, canceled.RescheduledTo)
	})
}

func TestTimeRules_ThatAreNoneAreRefusedWithTheField(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		every := []int{0, 1, 2, 3, 4, 5, 6}
		slot := func(from, to int) []any { return []any{nodetest.Object{"from": from, "to": to}} }
		for field, rules := range map[string][]any{
			"rules[0].slots[0].from": {nodetest.Object{"weekdays": every, "slots": slot(2460, 900)}},
			"rules[0].slots[0].to":   {nodetest.Object{"weekdays": every, "slots": slot(900, 2401)}},
			"rules[0].weekdays":      {nodetest.Object{"slots": slot(900, 1700)}},
			"rules[0].weekdays[0]":   {nodetest.Object{"weekdays": []int{7}, "slots": slot(900, 1700)}},
			"rules[0].slots":         {nodetest.Object{"weekdays": every, "slots": []any{}}},
			"rules[0].from":          {nodetest.Object{"from": "2026-13-01", "slots": slot(900, 1700)}},
			"rules[0].to":            {nodetest.Object{"from": "2027-01-02", "to": "2027-01-01", "slots": slot(900, 1700)}},
			"rules[0].rrule":         {nodetest.Object{"rrule": "FREQ=SOMETIMES", "slots": slot(900, 1700)}},
			"rules[1].rrule":         {nodetest.Object{"rrule": "FREQ=DAILY", "slots": slot(900, 1000)}, nodetest.Object{"rrule": "FREQ=DAILY;COUNT=0", "slots": slot(1000, 1100)}},
			"rules[2].rrule": {
				nodetest.Object{"rrule": "FREQ=DAILY", "slots": slot(900, 1000)}, nodetest.Object{"rrule": "FREQ=DAILY;INTERVAL=1;COUNT=9", "slots": slot(1000, 1100)},
				nodetest.Object{"rrule": "FREQ=DAILY;COUNT=2;UNTIL=20270301", "slots": slot(1100, 1200)},
			},
			"rules[0]":                 {nodetest.Object{"weekdays": []int{1}, "from": "2027-01-01", "to": "2027-01-02", "slots": slot(900, 1700)}},
			"rules[1].slots[0]":        {nodetest.Object{"weekdays": every, "slots": slot(900, 1700)}, nodetest.Object{"weekdays": []int{1}, "slots": slot(1600, 1800)}},
			"rules[0].types[0]":        {nodetest.Object{"weekdays": every, "slots": slot(900, 1700), "types": []string{"none"}}},
			"rules[1].id":              {nodetest.Object{"id": "a", "weekdays": []int{1}, "slots": slot(900, 1700)}, nodetest.Object{"id": "a", "weekdays": []int{2}, "slots": slot(900, 1700)}},
			"rules[0].slots[0].middle": {nodetest.Object{"weekdays": every, "slots": []any{nodetest.Object{"from": 900, "to": 1000, "middle": 930}}}},
		} {
			r := nodetest.Request{Method: http.MethodPut, Path: "/management/timeRules", Token: c.Key, Body: nodetest.Object{"rules": rules}}
			assert.Equal(t, []string{field}, h.Unchanged(r).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).WrongFields(), field)
		}
		for field, change := range map[string]nodetest.Object{
			"depthOfDays": {"depthOfDays": -1}, "scheduleAfterHoursFromNow": {"scheduleAfterHoursFromNow": -2},
		} {
			r := nodetest.Request{Method: http.MethodPut, Path: "/management/timeRules", Token: c.Key, Body: change}
			assert.Equal(t, []string{field}, h.Unchanged(r).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).WrongFields())
		}
	})
}
