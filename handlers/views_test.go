package handlers_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// rooms is a clinic where each room has visits and requests of its own.
type rooms struct {
	*clinic
	own, lent      string // resources: the provider's, and one they may look at
	taken, waiting string // of lent: a booking it has taken, and one that waits for it
	member         string // the provider's id
	token          string
}

func (h *house) newRooms() *rooms {
	h.t.Helper()
	c := h.newClinic()
	kind, other := c.newType(nil), c.newType(nil)
	r := &rooms{clinic: c, own: c.newResource(nil, kind), lent: c.newResource(nil, other)}
	r.member = c.staff(http.MethodPost, "/management/members", object{"phone": "+966500000061", "role": "provider", "resources": []string{r.own}}).ok().str("result.id")
	r.token = c.signIn("+966500000061", true).str("accessToken")
	r.taken = c.join(other, nil).str("id")
	c.next(r.lent).ok()
	r.waiting = c.join(other, nil).str("id")
	return r
}

// lend sets what the provider may look at besides their own.
func (r *rooms) lend(body object) answer {
	r.t.Helper()
	return r.staff(http.MethodPut, "/management/members/"+r.member, body).ok()
}

func (r *rooms) as(method, path string, body any) answer {
	r.t.Helper()
	return r.send(request{method: method, path: path, token: r.token, body: body})
}

func TestProvidersLookAtWhatTheyWereLent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		r := h.newRooms()
		get, post := http.MethodGet, http.MethodPost
		// sees checks every way there is to look at the bookings of the lent room.
		sees := func(confirmed, requests bool) {
			t.Helper()
			listed := r.as(get, "/management/bookings", nil).ok().pluck("result", "id")
			for id, may := range map[string]bool{r.taken: confirmed, r.waiting: requests} {
				_, _, err := h.watch(r.token, "booking:"+id)
				if may {
					assert.Contains(t, listed, id)
					r.as(get, "/management/bookings/"+id, nil).ok()
					assert.NoError(t, err)
				} else {
					assert.NotContains(t, listed, id)
					r.as(get, "/management/bookings/"+id, nil).refused(http.StatusForbidden, models.CodeForbidden)
					assert.Error(t, err)
				}
			}
			_, _, err := h.watch(r.token, "queue:"+r.lent)
			for _, path := range []string{"/management/queue?resourceId=", "/management/bookings/unassigned?resourceId="} {
				if requests {
					assert.Equal(t, []string{r.waiting}, r.as(get, path+r.lent, nil).ok().pluck("result", "id"))
					assert.NoError(t, err)
				} else {
					r.as(get, path+r.lent, nil).refused(http.StatusForbidden, models.CodeForbidden)
					assert.Error(t, err)
				}
			}
			viewable := func(list string) []string {
				return r.as(get, "/management/resources/"+list, nil).ok().pluck("result", "id")
			}
			expected := func(lent bool) []string {
				if lent {
					return []string{r.own, r.lent}
				}
				return []string{r.own}
			}
			assert.Equal(t, []string{r.own}, viewable("mine"))
			assert.Equal(t, expected(confirmed), viewable("confirmedViewable"))
			assert.Equal(t, expected(requests), viewable("requestsViewable"))
			// To look is not to act.
			for verb, id := range map[string]string{"start": r.taken, "cancel": r.waiting, "hold": r.waiting, "noShow": r.taken} {
				r.as(post, "/management/bookings/"+verb, object{"bookingId": id}).refused(http.StatusForbidden, models.CodeForbidden)
			}
			r.as(post, "/management/bookings/assign", object{"bookingId": r.waiting, "resourceId": r.lent}).refused(http.StatusForbidden, models.CodeForbidden)
			r.as(post, "/management/queue/next", object{"resourceId": r.lent}).refused(http.StatusForbidden, models.CodeForbidden)
			r.as(post, "/management/queue/pause", object{"resourceId": r.lent}).refused(http.StatusForbidden, models.CodeForbidden)
		}
		sees(false, false)
		shown := r.lend(object{"viewConfirmed": []string{r.lent}})
		assert.Equal(t, []any{r.lent}, shown.at("result.viewConfirmed"))
		assert.Equal(t, []any{}, shown.at("result.viewRequests"))
		sees(true, false)
		assert.Equal(t, []any{r.lent}, r.lend(object{"viewRequests": []string{r.lent}}).at("result.viewConfirmed"), "what is absent stays")
		sees(true, true)
		r.lend(object{"viewConfirmed": []string{}})
		sees(false, true)
		listed := r.staff(get, "/management/members", nil).ok()
		assert.Equal(t, []any{r.lent}, listed.at("result.0.viewRequests"))
		r.lend(object{"viewRequests": []string{}})
		sees(false, false)

		elsewhere := h.newClinic()
		foreign := elsewhere.newResource(nil)
		for _, field := range []string{"viewConfirmed", "viewRequests"} {
			r.staff(http.MethodPut, "/management/members/"+r.member, object{field: []string{foreign}}).refused(http.StatusNotFound, models.CodeResourceMissing)
		}
		r.lend(object{"viewRequests": []string{r.lent}})
		r.staff(http.MethodDelete, "/management/resources/"+r.lent, nil).ok()
		assert.Equal(t, []string{r.own}, r.as(get, "/management/resources/requestsViewable", nil).ok().pluck("result", "id"))
		r.as(get, "/management/queue?resourceId="+r.lent, nil).refused(http.StatusForbidden, models.CodeForbidden)
	})
}

// TestRequestsForOthersAreTheirs: who waits for one doctor alone is no business
// of another who serves the same type.
func TestRequestsForOthersAreTheirs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		c.newResource(object{"providerPhone": "+966500000062"}, kind)
		other := c.newResource(nil, kind)
		token := c.signIn("+966500000062", true).str("accessToken")
		id := c.join(kind, object{"resourceFilters": object{"resource": other}}).str("id")
		as := func(method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: token, body: body})
		}
		as(http.MethodGet, "/management/bookings/"+id, nil).refused(http.StatusForbidden, models.CodeForbidden)
		as(http.MethodPost, "/management/bookings/cancel", object{"bookingId": id}).refused(http.StatusForbidden, models.CodeForbidden)
		as(http.MethodPost, "/management/bookings/hold", object{"bookingId": id}).refused(http.StatusForbidden, models.CodeForbidden)
		assert.Empty(t, as(http.MethodGet, "/management/bookings", nil).ok().list("result"))
		c.act("hold", id, nil).ok()
	})
}

// TestLiveEndsWithTheRight takes away what somebody is watching: on every node
// they are asked to come again, and refused.
func TestLiveEndsWithTheRight(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		r := h.newRooms()
		far := h
		if h.server != nil {
			far = h.beside(nil)
		}
		for name, change := range map[string]struct {
			channel string
			take    func()
		}{
			"a view of requests": {"queue:" + r.lent, func() { r.lend(object{"viewRequests": []string{}}) }},
			"a view of bookings": {"booking:" + r.taken, func() { r.lend(object{"viewConfirmed": []string{}}) }},
			"a resource":         {"queue:" + r.own, func() { r.lend(object{"resources": []string{}}) }},
			"a resource to another": {"queue:" + r.own, func() {
				r.staff(http.MethodPut, "/management/resources/"+r.own, object{"providerPhone": "+966500000063"}).ok()
			}},
		} {
			far.hears(r.token, func() {
				r.lend(object{"resources": []string{r.own}, "viewConfirmed": []string{r.lent}, "viewRequests": []string{r.lent}})
			})
			far.loses(name, r.token, change.channel, change.take)
		}
		far.hears(r.token, func() { r.lend(object{"resources": []string{r.own, r.lent}}) })
		far.loses("a resource that is deleted", r.token, "queue:"+r.lent, func() { r.staff(http.MethodDelete, "/management/resources/"+r.lent, nil).ok() })
		again := far.dial(r.token)
		defer again.hangUp()
		assert.Zero(t, again.closed(1500*time.Millisecond), "what was told is told again every second")
	})
}

// hears waits until this node knows that a member may do more or less: until it
// does, it closes connections that were made before and after.
func (h *house) hears(token string, change func()) {
	h.t.Helper()
	l := h.dial(token)
	defer l.hangUp()
	change()
	require.Equal(h.t, 3014, l.closed(patience))
}

// loses watches a channel until something is taken away, and requires that it
// cannot be watched within five seconds.
func (h *house) loses(what, token, channel string, take func()) {
	h.t.Helper()
	before := h.dial(token)
	defer before.hangUp()
	require.Zero(h.t, before.subscribe(channel), what)
	take()
	assert.Equal(h.t, 3014, before.closed(5*time.Second), what)
	after := h.dial(token)
	defer after.hangUp()
	assert.NotZero(h.t, after.subscribe(channel), what)
}
