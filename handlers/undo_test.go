package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
	"nowserving/notify/webhook"
)

func TestACallIsUndone(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nil)
		for _, trigger := range []webhook.Trigger{webhook.TriggerBookingCalled, webhook.TriggerBookingReturned, webhook.TriggerNewAppointment} {
			c.Hook(string(trigger), r.URL, nil)
		}
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		first, second := c.Join(kind, nil), c.Join(kind, nil).Str("id")
		id := first.Str("id")
		screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK()
		_, display, err := h.Watch(screen.Str("result.token"), "display:"+screen.Str("result.id"))
		require.NoError(t, err)
		_, ticket, err := h.Watch(first.Str("ticketToken"), "booking:"+id)
		require.NoError(t, err)
		deadline := nodetest.Scalar[time.Time](h, "SELECT assignment_deadline FROM bookings WHERE id = ?", id)

		until := c.Next(room).OK().Str("result.undoUntil")
		assert.WithinDuration(t, time.Now().Add(models.UndoWindow), moment(t, until), 15*time.Second)
		nodetest.NextOf(t, ticket, "MY_BOOKING_ASSIGNED")
		nodetest.NextOf(t, display, "NOW_SERVING")

		back := c.Act("undo", id, nil).OK()
		assert.Equal(t, "PENDING_ASSIGNMENT", back.Str("result.status"))
		assert.Equal(t, "WAITING", back.Str("result.stage"))
		assert.Equal(t, first.Str("ticket"), back.Str("result.ticket"))
		assert.Equal(t, 1, back.Num("result.queuePosition"))
		for _, gone := range []string{"resourceId", "calledAt", "undoUntil"} {
			assert.NotContains(t, back.Members("result"), gone)
		}
		assert.Equal(t, 2, c.Position(second))
		assert.True(t, nodetest.Scalar[time.Time](h, "SELECT assignment_deadline FROM bookings WHERE id = ?", id).After(deadline),
			"the time as called does not count against the patient")
		assert.Equal(t, "WAITING", nodetest.At(nodetest.NextOf(t, ticket, "BOOKING_UPDATED"), "stage"))
		nodetest.NextOf(t, ticket, "QUEUE_POSITION_UPDATED")
		for state := nodetest.NextOf(t, display, "DISPLAY_UPDATED"); ; state = nodetest.NextOf(t, display, "DISPLAY_UPDATED") {
			if lines, _ := nodetest.At(state, "lastCalled").([]any); len(lines) == 0 {
				break // the screen shows no call that never was
			}
		}

		t.Log("the next call is a call like any other")
		assert.Equal(t, id, c.Next(room).OK().Str("result.id"))
		nodetest.NextOf(t, ticket, "MY_BOOKING_ASSIGNED")
		nodetest.NextOf(t, display, "NOW_SERVING")
		c.Act("start", id, nil).OK()
		c.Act("undo", id, nil).OK()
		visit := c.Schedule(kind, 1000, nil).OK().Str("id")
		c.Act("cancel", visit, nil).OK()
		c.Act("undo", visit, nil).OK()
		var told []string
		for _, a := range r.Await(6) {
			undone, _ := nodetest.At(a.Body, "data.undone").(string)
			told = append(told, strings.TrimSpace(a.Trigger()+" "+undone))
		}
		assert.ElementsMatch(t, []string{
			"bookingCalled", "bookingReturned assign", "bookingCalled", "bookingCalled start", "newAppointment", "newAppointment cancel",
		}, told, "receivers can tell a step that is taken back")
		assert.Equal(t, []string{
			"join by organization", "assign by organization", "undo by organization", "assign by organization", "start by organization", "undo by organization",
		}, auditOf(c, id))
	})
}

func moment(t *testing.T, text string) time.Time {
	t.Helper()
	m, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return m
}

// Each step is taken back to what was there before it, the version apart.
func TestEveryStepIsUndone(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"minutes": 30})
		room := c.NewResource(nil, kind)
		queued := func(verbs ...string) string {
			id := c.Join(kind, nil).OK().Str("id")
			for _, verb := range verbs {
				if verb == "assign" {
					c.Act(verb, id, nodetest.Object{"resourceId": room}).OK()
					continue
				}
				c.Act(verb, id, nil).OK()
			}
			return id
		}
		for name, step := range map[string]struct {
			id, verb string
		}{
			"assign what waits":      {queued(), "assign"},
			"assign what is on hold": {queued("hold"), "assign"},
			"start":                  {queued("assign"), "start"},
			"end when called":        {queued("assign"), "end"},
			"end when served":        {queued("assign", "start"), "end"},
			"no-show":                {queued("assign"), "noShow"},
			"hold":                   {queued(), "hold"},
			"return":                 {queued("hold"), "return"},
			"cancel what waits":      {queued(), "cancel"},
			"cancel what is called":  {queued("assign"), "cancel"},
			"start an appointment":   {c.Schedule(kind, 1000, nil).OK().Str("id"), "start"},
			"miss an appointment":    {c.Schedule(kind, 1100, nil).OK().Str("id"), "noShow"},
			"cancel an appointment":  {c.Schedule(kind, 1200, nil).OK().Str("id"), "cancel"},
		} {
			see := func() nodetest.Object {
				view := c.Staff(http.MethodGet, "/management/bookings/"+step.id, nil).OK().Members("result")
				// How many wait changes with every step of the others.
				for _, moving := range []string{"version", "undoUntil", "expiresAt", "queuePosition", "estimatedWaitMinutes", "estimatedWait"} {
					delete(view, moving)
				}
				return view
			}
			reminder := func() string {
				return nodetest.Scalar[string](h, "SELECT reminder_next FROM bookings WHERE id = ?", step.id)
			}
			before, next := see(), reminder()
			var more nodetest.Object
			if step.verb == "assign" {
				more = nodetest.Object{"resourceId": room}
			}
			c.Act(step.verb, step.id, more).OK()
			assert.NotEqual(t, before, see(), name)
			c.Act("undo", step.id, nil).OK()
			assert.Equal(t, before, see(), name)
			assert.Equal(t, next, reminder(), name)
			events := h.EventsOf(step.id)
			assert.Equal(t, step.verb, string(events[len(events)-1].Undone), name)
			c.Act("undo", step.id, nil).Refused(http.StatusConflict, models.CodeNothingToUndo)
		}
	})
}

func TestAStepThatCannotBeUndoneIsRefused(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"minutes": 30})
		room := c.NewResource(nil, kind)
		refused := func(id string) {
			t.Helper()
			c.Act("undo", id, nil).Refused(http.StatusConflict, models.CodeNothingToUndo)
		}
		id := c.Join(kind, nil).Str("id")
		refused(id) // a patient joined; nobody did anything to the booking

		c.Next(room).OK()
		h.Exec("UPDATE bookings SET undo_until = ? WHERE id = ?", time.Now().UTC().Add(-time.Second), id)
		refused(id) // half a minute is over

		h.Exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
		c.Act("recall", id, nil).OK()
		refused(id) // the whole room has heard it

		mine := c.Patient("+966500000091")
		own := c.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: mine, App: c.ID, Body: nodetest.Object{"type": kind, "assign": false}}).OK().Str("result.id")
		c.Send(nodetest.Request{Method: http.MethodPost, Path: "/customer/bookings/cancel", Token: mine, App: c.ID, Body: nodetest.Object{"bookingId": own}}).OK()
		refused(own) // the patient left

		c.Schedule(kind, 1000, nil).OK()
		moved := c.Schedule(kind, 1100, nil).OK().Str("id")
		c.Schedule(kind, 1200, nodetest.Object{"rescheduleBookingId": moved}).OK()
		refused(moved) // another has taken its place

		given := c.Schedule(kind, 1400, nil).OK().Str("id")
		c.Act("cancel", given, nil).OK()
		c.Schedule(kind, 1400, nil).OK()
		c.Act("undo", given, nil).Refused(http.StatusConflict, models.CodeSlotTaken)

		gone := c.NewType(nil)
		lone := c.NewResource(nil, gone)
		stranded := c.Join(gone, nil).Str("id")
		c.Next(lone).OK()
		c.Staff(http.MethodDelete, "/management/types/"+gone, nil).OK()
		c.Act("undo", stranded, nil).Refused(http.StatusNotFound, models.CodeTypeMissing) // nobody could call them
		assert.Equal(t, "CALLED", c.Staff(http.MethodGet, "/management/bookings/"+stranded, nil).OK().Str("result.stage"))

		for _, verb := range []string{"cancel", "noShow"} {
			leaving := c.NewType(nil)
			closing := c.NewResource(nil, leaving)
			visit := c.Schedule(leaving, 1000, nil).OK().Str("id")
			c.Act(verb, visit, nil).OK()
			c.Staff(http.MethodDelete, "/management/resources/"+closing, nil).OK()
			c.Act("undo", visit, nil).Refused(http.StatusNotFound, models.CodeResourceMissing)
			c.Staff(http.MethodDelete, "/management/types/"+leaving, nil).OK()
			c.Act("undo", visit, nil).Refused(http.StatusNotFound, models.CodeTypeMissing)
		}

		elsewhere := h.NewClinic()
		held := c.Join(kind, nil).Str("id")
		c.Act("hold", held, nil).OK()
		elsewhere.Act("undo", held, nil).Refused(http.StatusNotFound, models.CodeBookingNotFound)
	})
}

func TestOneOfManyUndoesWins(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		id := c.Join(kind, nil).Str("id")
		c.Next(room).OK()
		won := 0
		for _, a := range nodetest.AtOnce(h, 32, func(int) nodetest.Request {
			return nodetest.Request{Method: http.MethodPost, Path: "/management/bookings/undo", Token: c.Key, Body: nodetest.Object{"bookingId": id}}
		}) {
			if a.Status == http.StatusOK {
				won++
				continue
			}
			a.Refused(http.StatusConflict, models.CodeNothingToUndo)
		}
		assert.Equal(t, 1, won)
	})
}
