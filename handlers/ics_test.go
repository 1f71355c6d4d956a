package handlers_test

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	ics "github.com/arran4/golang-ical"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// calendarIn reads the calendar of an answer, whose lines must be as RFC 5545 asks.
func calendarIn(a nodetest.Response) *ics.Calendar {
	a.T.Helper()
	a.OK()
	assert.Equal(a.T, "text/calendar; charset=utf-8", a.Header.Get("Content-Type"), a.Of)
	for line := range strings.Lines(string(a.Raw)) {
		written, ended := strings.CutSuffix(line, "\r\n")
		assert.True(a.T, ended, "%q does not end in CRLF", line)
		assert.NotContains(a.T, written, "\r")
		assert.LessOrEqual(a.T, len(written), 75, "%q is not folded", line)
	}
	c, err := ics.ParseCalendar(bytes.NewReader(a.Raw))
	require.NoError(a.T, err)
	return c
}

// methodOf is the method of a calendar.
func methodOf(c *ics.Calendar) string {
	for _, p := range c.CalendarProperties {
		if p.IANAToken == string(ics.PropertyMethod) {
			return p.Value
		}
	}
	return ""
}

// value is a property of an entry, "" if it has none.
func value(e *ics.VEvent, p ics.ComponentProperty) string {
	if found := e.GetProperty(p); found != nil {
		return found.Value
	}
	return ""
}

// sequence is the SEQUENCE of an entry.
func sequence(t *testing.T, e *ics.VEvent) int {
	t.Helper()
	n, err := strconv.Atoi(value(e, ics.ComponentPropertySequence))
	require.NoError(t, err)
	return n
}

// calendarFile asks for the calendar file of a booking.
func calendarFile(h *nodetest.Node, id, token string) nodetest.Response {
	h.T.Helper()
	return h.Send(nodetest.Request{Method: get, Path: "/customer/bookings/" + id + ".ics", Token: token})
}

// onlyEvent is the one entry of a calendar.
func onlyEvent(t *testing.T, c *ics.Calendar) *ics.VEvent {
	t.Helper()
	require.Len(t, c.Events(), 1)
	return c.Events()[0]
}

func TestCalendarFileKeepsItsUIDWhenTheAppointmentIsRescheduledAndCanceled(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, kind, room := h.NewQueue()
		token := c.Patient("+966500000301")
		as := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: token, Body: body}).OK()
		}
		first := as(put, "/customer/scheduling/new", nodetest.Appointment(kind, nodetest.Day(3), 1000, nodetest.Object{"note": "Aching"})).Str("result.id")
		a := calendarFile(h, first, token)
		assert.Equal(t, `attachment; filename="appointment.ics"`, a.Header.Get("Content-Disposition"))
		assert.Equal(t, "no-store", a.Header.Get("Cache-Control"))
		assert.NotContains(t, string(a.Raw), "Aching")
		made := calendarIn(a)
		assert.Equal(t, "PUBLISH", methodOf(made))
		e := onlyEvent(t, made)
		assert.Equal(t, first+"@clinic.example", e.Id())
		for property, want := range map[ics.ComponentProperty]string{
			ics.ComponentPropertySummary: "General – Al Noor", ics.ComponentPropertyLocation: "Room", ics.ComponentPropertyDescription: "Your ticket: A001",
			ics.ComponentPropertyUrl: nodetest.PublicURL + "/ticket/" + first, ics.ComponentPropertyStatus: "CONFIRMED",
		} {
			assert.Equal(t, want, value(e, property), property)
		}
		starts, err := e.GetStartAt()
		require.NoError(t, err)
		assert.Equal(t, nodetest.Day(3)+"T07:00:00Z", starts.Format(time.RFC3339))
		ends, err := e.GetEndAt()
		require.NoError(t, err)
		assert.Equal(t, 10*time.Minute, ends.Sub(starts))
		changed, err := e.GetLastModifiedAt()
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now(), changed, time.Minute)
		stamp, err := e.GetDtStampTime()
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now(), stamp, time.Minute)

		last, before := first, sequence(t, e)
		for _, military := range []int{1100, 1200} {
			moved := as(post, "/customer/bookings/reschedule", nodetest.Object{"bookingId": last, "date": nodetest.Day(4), "time": military}).Str("result.id")
			old := calendarIn(calendarFile(h, last, token))
			assert.Equal(t, "CANCEL", methodOf(old))
			assert.Greater(t, sequence(t, onlyEvent(t, old)), before)
			now := calendarIn(calendarFile(h, moved, token))
			assert.Equal(t, "PUBLISH", methodOf(now))
			assert.Equal(t, first+"@clinic.example", onlyEvent(t, now).Id())
			assert.Greater(t, sequence(t, onlyEvent(t, now)), sequence(t, onlyEvent(t, old)), "the new time is not taken for an old one")
			last, before = moved, sequence(t, onlyEvent(t, now))
		}
		feed := strings.TrimPrefix(c.Staff(post, "/management/resources/"+room+"/calendarFeed", nil).OK().Str("result.url"), nodetest.PublicURL)
		visit := onlyEvent(t, calendarIn(h.Send(nodetest.Request{Method: get, Path: feed}))) // one of the three bookings
		assert.Equal(t, "CONFIRMED", value(visit, ics.ComponentPropertyStatus))
		assert.Equal(t, before, sequence(t, visit))
		as(post, "/customer/bookings/cancel", nodetest.Object{"bookingId": last})
		gone := calendarIn(calendarFile(h, last, token))
		assert.Equal(t, "CANCEL", methodOf(gone))
		assert.Equal(t, first+"@clinic.example", onlyEvent(t, gone).Id())
		assert.Equal(t, "CANCELLED", value(onlyEvent(t, gone), ics.ComponentPropertyStatus))
		assert.Greater(t, sequence(t, onlyEvent(t, gone)), before)
	})
}

func TestCalendarFileIsTentativeUntilTheAppointmentIsConfirmed(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"autoConfirm": false})
		c.NewResource(nil, kind)
		token := c.Patient("+966500000302")
		status := func(id, token string) string {
			return value(onlyEvent(t, calendarIn(calendarFile(h, id, token))), ics.ComponentPropertyStatus)
		}
		request := func(military int) string {
			return h.Send(nodetest.Request{Method: put, Path: "/customer/scheduling/new", Token: token, Body: nodetest.Appointment(kind, nodetest.Day(3), military, nil)}).OK().Str("result.id")
		}
		requested := request(1000)
		assert.Equal(t, "TENTATIVE", status(requested, token))
		c.Act("approve", requested, nil).OK()
		assert.Equal(t, "CONFIRMED", status(requested, token))
		rejected := request(1100)
		c.Act("reject", rejected, nil).OK()
		assert.Equal(t, "CANCELLED", status(rejected, token))
		reserved := c.Staff(put, "/management/scheduling/temporary", nodetest.Appointment(kind, nodetest.Day(3), 1200, nil)).OK()
		assert.Equal(t, "TENTATIVE", status(reserved.Str("id"), reserved.Str("ticketToken")))
		c.Staff(post, "/management/scheduling/confirm", nodetest.Object{"bookingId": reserved.Str("id")}).OK()
		assert.Equal(t, "CONFIRMED", status(reserved.Str("id"), reserved.Str("ticketToken")))
	})
}

// The time in Berlin is an hour behind from the last Sunday of October on.
func TestCalendarFileHasTheRightTimeOnBothSidesOfAChangeOfClocks(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, kind, _ := h.NewQueue()
		c.Staff(put, "/management/organizations/"+c.ID, nodetest.Object{"timezone": "Europe/Berlin"}).OK()
		year := time.Now().Year() + 1
		sunday := time.Date(year, time.October, 31, 0, 0, 0, 0, time.UTC)
		sunday = sunday.AddDate(0, 0, -int(sunday.Weekday()))
		for day, hour := range map[time.Time]string{sunday.AddDate(0, 0, -1): "T08:00:00Z", sunday: "T09:00:00Z"} {
			b := c.Staff(put, nodetest.JoinPath, nodetest.Appointment(kind, day.Format(time.DateOnly), 1000, nodetest.Object{"showAll": true})).OK()
			starts, err := onlyEvent(t, calendarIn(calendarFile(h, b.Str("id"), b.Str("ticketToken")))).GetStartAt()
			require.NoError(t, err)
			assert.Equal(t, day.Format(time.DateOnly)+hour, starts.Format(time.RFC3339))
		}
	})
}

func TestCalendarFileEscapesAndFoldsWhatANameHolds(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		arabic := strings.Repeat("فحص شامل؛ ", 12) + "للقلب، والرئة"
		kind := c.NewType(nodetest.Object{"name": "Heart, lungs; both", "name_translations": nodetest.Object{"ar": arabic}})
		room := c.NewResource(nodetest.Object{"name": `Room \ 7`}, kind)
		// The API takes no line ends in a name, but a name may be older than that.
		h.Exec("UPDATE resources SET name = ? WHERE id = ?", "Room 7\nSTATUS:CANCELLED\rX-A:1\r\nEND:VEVENT\x01", room)
		b := c.Schedule(kind, 1000, nil).OK()
		a := h.Send(nodetest.Request{Method: get, Path: "/customer/bookings/" + b.Str("id") + ".ics?token=" + b.Str("ticketToken")})
		e := onlyEvent(t, calendarIn(a))
		assert.Contains(t, string(a.Raw), `SUMMARY:Heart\, lungs\; both – Al Noor`)
		assert.Equal(t, "Heart, lungs; both – Al Noor", value(e, ics.ComponentPropertySummary))
		assert.Equal(t, "Room 7\nSTATUS:CANCELLED\nX-A:1\nEND:VEVENT", value(e, ics.ComponentPropertyLocation))
		assert.Equal(t, "CONFIRMED", value(e, ics.ComponentPropertyStatus))
		a = h.Send(nodetest.Request{Method: get, Path: "/customer/bookings/" + b.Str("id") + ".ics?language=ar&token=" + b.Str("ticketToken")})
		e = onlyEvent(t, calendarIn(a))
		assert.Equal(t, arabic+" – Al Noor", value(e, ics.ComponentPropertySummary))
		assert.Equal(t, "رقم تذكرتك: A001", value(e, ics.ComponentPropertyDescription))
		a = h.Send(nodetest.Request{Method: get, Path: "/customer/bookings/" + b.Str("id") + ".ics", Token: b.Str("ticketToken"), Lang: "ar"})
		assert.Equal(t, arabic+" – Al Noor", value(onlyEvent(t, calendarIn(a)), ics.ComponentPropertySummary))
	})
}

func TestCalendarFileIsGivenToTheCustomerAndByTheTicketOnly(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, kind, _ := h.NewQueue()
		b, other := c.Schedule(kind, 1000, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000303"}}).OK(), c.Schedule(kind, 1100, nil).OK()
		queued := c.Join(kind, nil)
		id := b.Str("id")
		mine, stranger := c.Patient("+966500000303"), c.Patient("+966500000304")
		link := func(id, token string) nodetest.Response {
			return h.Send(nodetest.Request{Method: get, Path: "/customer/bookings/" + id + ".ics?token=" + token})
		}
		calendarIn(calendarFile(h, id, mine))
		calendarIn(calendarFile(h, id, b.Str("ticketToken")))
		calendarIn(link(id, b.Str("ticketToken")))
		calendarFile(h, id, stranger).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		calendarFile(h, id, other.Str("ticketToken")).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		link(id, other.Str("ticketToken")).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		calendarFile(h, id, "").Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		for _, token := range []string{mine, c.Key, "0123456789012345", "RVLGmb-456GnxTuwj8Yusw"} { // tickets only, and no other credential in an address
			if a := link(id, token); a.Status != http.StatusUnprocessableEntity { // an access token is too long
				a.Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			}
		}
		calendarFile(h, id, c.Key).Refused(http.StatusForbidden, models.CodeForbidden)
		calendarFile(h, queued.Str("id"), queued.Str("ticketToken")).Refused(http.StatusNotFound, models.CodeNoTime)
		calendarFile(h, "nothing", mine).Refused(http.StatusNotFound, models.CodeBookingNotFound)

		t.Log("in no other address is a token accepted")
		h.Send(nodetest.Request{Method: get, Path: "/customer/bookings/" + id + "?token=" + b.Str("ticketToken")}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		assert.NotContains(t, h.Log.String(), b.Str("ticketToken"))

		t.Log("a ticket token ends a day after the visit")
		past := time.Now().UTC().Add(-25 * time.Hour)
		over := c.Schedule(kind, 1200, nil).OK()
		h.Exec("UPDATE bookings SET starts_at = ?, ends_at = ? WHERE id = ?", past.Add(-time.Hour), past, over.Str("id"))
		link(over.Str("id"), over.Str("ticketToken")).Refused(http.StatusUnauthorized, models.CodeTokenExpired)
	})
}

// feedOf makes the calendar feed of a resource and returns its path.
func feedOf(c *nodetest.Clinic, room string) string {
	c.T.Helper()
	address := c.Staff(post, "/management/resources/"+room+"/calendarFeed", nil).OK().Str("result.url")
	path, ours := strings.CutPrefix(address, nodetest.PublicURL)
	require.True(c.T, ours, address)
	return path
}

func TestCalendarFeedShowsAppointmentsWithoutTheirCustomers(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, kind, room := h.NewQueue()
		elsewhere := c.NewResource(nodetest.Object{"name": "Attic"}, kind)
		at := func(military int, room string) nodetest.Response {
			return c.Schedule(kind, military, nodetest.Object{
				"resourceFilters": nodetest.Object{"resource": room}, "note": "Aching", "bookingInfoCustomFields": nodetest.Object{"reason": "cough"},
				"customerIdentifier": nodetest.Object{"phone": "+966500000305", "email": "mona@example.com", "firstName": "Mona", "lastName": "Abdullah"},
			}).OK()
		}
		kept, canceled := at(1000, room), at(1100, room)
		at(1000, elsewhere)
		c.Join(kind, nil)
		c.Act("cancel", canceled.Str("id"), nodetest.Object{"reason": "Gone"}).OK()
		long, past, future := at(1200, room).Str("id"), at(1300, room).Str("id"), at(1400, room).Str("id")
		now := time.Now().UTC()
		for id, starts := range map[string]time.Time{long: now.AddDate(0, 0, -29), past: now.AddDate(0, 0, -31), future: now.AddDate(0, 0, 366)} {
			h.Exec("UPDATE bookings SET starts_at = ?, ends_at = ? WHERE id = ?", starts, starts.Add(10*time.Minute), id)
		}
		feed := feedOf(c, room)
		a := h.Send(nodetest.Request{Method: get, Path: feed})
		got := map[string]string{}
		cal := calendarIn(a)
		for _, e := range cal.Events() {
			got[e.Id()] = value(e, ics.ComponentPropertySummary) + " " + value(e, ics.ComponentPropertyStatus)
		}
		assert.Equal(t, map[string]string{
			long + "@clinic.example":               "General A004 CONFIRMED",
			kept.Str("id") + "@clinic.example":     "General A001 CONFIRMED",
			canceled.Str("id") + "@clinic.example": "General A002 CANCELLED",
		}, got)
		assert.Equal(t, "PUBLISH", methodOf(cal))
		for _, secret := range []string{"Mona", "Abdullah", "966500000305", "mona@", "Aching", "cough", "Gone", kept.Str("customerId")} {
			assert.NotContains(t, string(a.Raw), secret)
		}

		t.Log("a calendar app that has it is told so, until something changes")
		assert.Equal(t, "private, max-age=300", a.Header.Get("Cache-Control"))
		again := func() nodetest.Response {
			return h.Send(nodetest.Request{Method: get, Path: feed, Header: map[string]string{"If-None-Match": a.Header.Get("ETag")}})
		}
		require.NotEmpty(t, a.Header.Get("ETag"))
		assert.Equal(t, http.StatusNotModified, again().Status)
		c.Act("cancel", kept.Str("id"), nil).OK()
		again().OK()
	})
}

func TestCalendarFeedIsRefusedOnceItsAddressIsReplacedOrDeleted(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, kind, room := h.NewQueue()
		refused := func(path string) {
			t.Helper()
			a := h.Send(nodetest.Request{Method: get, Path: path}).Refused(http.StatusNotFound, models.CodeFeedMissing)
			assert.Equal(t, "no-store", a.Header.Get("Cache-Control"))
		}
		show := func(path string) { t.Helper(); calendarIn(h.Send(nodetest.Request{Method: get, Path: path})) }
		address := "/management/resources/" + room + "/calendarFeed"
		c.Staff(del, address, nil).Refused(http.StatusNotFound, models.CodeFeedMissing)
		first := feedOf(c, room)
		show(first)
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM calendar_feeds WHERE token_hash LIKE '%nsf%'"), "the token is kept as a hash")
		second := feedOf(c, room)
		refused(first)
		show(second)
		c.Staff(del, address, nil).OK()
		refused(second)
		refused(strings.Replace(second, "nsf_", "nsf_A", 1))
		refused("/calendar/x.ics")
		assert.NotContains(t, h.Log.String(), strings.TrimSuffix(strings.TrimPrefix(second, "/calendar/"), ".ics"))

		t.Log("the feed of a deleted resource, and of a deleted organization")
		spare := c.NewResource(nil, kind)
		third, fourth := feedOf(c, spare), feedOf(c, room)
		c.Staff(del, "/management/resources/"+spare, nil).OK()
		refused(third)
		show(fourth)
		h.Send(nodetest.Request{Method: del, Path: "/management/organizations/" + c.ID, Token: nodetest.BootstrapKey}).OK()
		refused(fourth)
	})
}

func TestProviderMakesTheCalendarFeedOfTheirOwnResourcesOnly(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(_ *testing.T, h *nodetest.Node) {
		c, kind, other := h.NewQueue()
		room := c.NewResource(nodetest.Object{"providerPhone": "+966500000306"}, kind)
		token := c.SignIn("+966500000306", true).Str("accessToken")
		ask := func(method, room string) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: "/management/resources/" + room + "/calendarFeed", Token: token})
		}
		ask(post, room).OK()
		ask(del, room).OK()
		feedOf(c, other)
		ask(post, other).Refused(http.StatusForbidden, models.CodeForbidden)
		ask(del, other).Refused(http.StatusForbidden, models.CodeForbidden)
		ask(post, "nothing").Refused(http.StatusNotFound, models.CodeResourceMissing)
	})
}
