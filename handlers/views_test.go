package handlers_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// rooms is a clinic where each room has visits and requests of its own.
type rooms struct {
	*nodetest.Clinic
	own, lent      string // resources: the provider's, and one they may look at
	taken, waiting string // of lent: a booking it has taken, and one that waits for it
	member         string // the provider's id
	token          string
}

func newRooms(h *nodetest.Node) *rooms {
	h.T.Helper()
	c := h.NewClinic()
	kind, other := c.NewType(nil), c.NewType(nil)
	r := &rooms{Clinic: c, own: c.NewResource(nil, kind), lent: c.NewResource(nil, other)}
	r.member = c.Staff(http.MethodPost, "/management/members", nodetest.Object{"phone": "+966500000061", "role": "provider", "resources": []string{r.own}}).OK().Str("result.id")
	r.token = c.SignIn("+966500000061", true).Str("accessToken")
	r.taken = c.Join(other, nil).Str("id")
	c.Next(r.lent).OK()
	r.waiting = c.Join(other, nil).Str("id")
	return r
}

// lend sets what the provider may look at besides their own.
func (r *rooms) lend(body nodetest.Object) nodetest.Response {
	r.T.Helper()
	return r.Staff(http.MethodPut, "/management/members/"+r.member, body).OK()
}

func (r *rooms) as(method, path string, body any) nodetest.Response {
	r.T.Helper()
	return r.Send(nodetest.Request{Method: method, Path: path, Token: r.token, Body: body})
}

func TestProvidersSeeTheBookingsOfSharedResources(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		r := newRooms(h)
		get, post := http.MethodGet, http.MethodPost
		// sees checks every way there is to look at the bookings of the lent room.
		sees := func(confirmed, requests bool) {
			t.Helper()
			listed := r.as(get, "/management/bookings", nil).OK().Pluck("result", "id")
			for id, may := range map[string]bool{r.taken: confirmed, r.waiting: requests} {
				_, _, err := h.Watch(r.token, "booking:"+id)
				if may {
					assert.Contains(t, listed, id)
					r.as(get, "/management/bookings/"+id, nil).OK()
					assert.NoError(t, err)
				} else {
					assert.NotContains(t, listed, id)
					r.as(get, "/management/bookings/"+id, nil).Refused(http.StatusForbidden, models.CodeForbidden)
					assert.Error(t, err)
				}
			}
			_, _, err := h.Watch(r.token, "queue:"+r.lent)
			for _, path := range []string{"/management/queue?resourceId=", "/management/bookings/unassigned?resourceId="} {
				if requests {
					assert.Equal(t, []string{r.waiting}, r.as(get, path+r.lent, nil).OK().Pluck("result", "id"))
					assert.NoError(t, err)
				} else {
					r.as(get, path+r.lent, nil).Refused(http.StatusForbidden, models.CodeForbidden)
					assert.Error(t, err)
				}
			}
			viewable := func(list string) []string {
				return r.as(get, "/management/resources/"+list, nil).OK().Pluck("result", "id")
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
				r.as(post, "/management/bookings/"+verb, nodetest.Object{"bookingId": id}).Refused(http.StatusForbidden, models.CodeForbidden)
			}
			r.as(post, "/management/bookings/assign", nodetest.Object{"bookingId": r.waiting, "resourceId": r.lent}).Refused(http.StatusForbidden, models.CodeForbidden)
			r.as(post, "/management/queue/next", nodetest.Object{"resourceId": r.lent}).Refused(http.StatusForbidden, models.CodeForbidden)
			r.as(post, "/management/queue/pause", nodetest.Object{"resourceId": r.lent}).Refused(http.StatusForbidden, models.CodeForbidden)
		}
		sees(false, false)
		shown := r.lend(nodetest.Object{"viewConfirmed": []string{r.lent}})
		assert.Equal(t, []any{r.lent}, shown.At("result.viewConfirmed"))
		assert.Equal(t, []any{}, shown.At("result.viewRequests"))
		sees(true, false)
		assert.Equal(t, []any{r.lent}, r.lend(nodetest.Object{"viewRequests": []string{r.lent}}).At("result.viewConfirmed"), "what is absent stays")
		sees(true, true)
		r.lend(nodetest.Object{"viewConfirmed": []string{}})
		sees(false, true)
		listed := r.Staff(get, "/management/members", nil).OK()
		assert.Equal(t, []any{r.lent}, listed.At("result.0.viewRequests"))
		r.lend(nodetest.Object{"viewRequests": []string{}})
		sees(false, false)

		elsewhere := h.NewClinic()
		foreign := elsewhere.NewResource(nil)
		for _, field := range []string{"viewConfirmed", "viewRequests"} {
			r.Staff(http.MethodPut, "/management/members/"+r.member, nodetest.Object{field: []string{foreign}}).Refused(http.StatusNotFound, models.CodeResourceMissing)
		}
		r.lend(nodetest.Object{"viewRequests": []string{r.lent}})
		r.Staff(http.MethodDelete, "/management/resources/"+r.lent, nil).OK()
		assert.Equal(t, []string{r.own}, r.as(get, "/management/resources/requestsViewable", nil).OK().Pluck("result", "id"))
		r.as(get, "/management/queue?resourceId="+r.lent, nil).Refused(http.StatusForbidden, models.CodeForbidden)
	})
}

// TestProvidersDoNotSeeRequestsForOtherResources lets a patient wait for one doctor
// only. Another doctor who serves the same type does not see the booking.
func TestProvidersDoNotSeeRequestsForOtherResources(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		c.NewResource(nodetest.Object{"providerPhone": "+966500000062"}, kind)
		other := c.NewResource(nil, kind)
		token := c.SignIn("+966500000062", true).Str("accessToken")
		id := c.Join(kind, nodetest.Object{"resourceFilters": nodetest.Object{"resource": other}}).Str("id")
		as := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: token, Body: body})
		}
		as(http.MethodGet, "/management/bookings/"+id, nil).Refused(http.StatusForbidden, models.CodeForbidden)
		as(http.MethodPost, "/management/bookings/cancel", nodetest.Object{"bookingId": id}).Refused(http.StatusForbidden, models.CodeForbidden)
		as(http.MethodPost, "/management/bookings/hold", nodetest.Object{"bookingId": id}).Refused(http.StatusForbidden, models.CodeForbidden)
		assert.Empty(t, as(http.MethodGet, "/management/bookings", nil).OK().List("result"))
		c.Act("hold", id, nil).OK()
	})
}

// TestALiveSubscriptionEndsWithThePermission takes away the permission of a
// subscriber. On every node, the connection is closed and the next subscription
// refused.
func TestALiveSubscriptionEndsWithThePermission(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		r := newRooms(h)
		far := h
		if h.RedisServer != nil {
			far = h.Beside(nil)
		}
		for name, change := range map[string]struct {
			channel string
			take    func()
		}{
			"a view of requests": {"queue:" + r.lent, func() { r.lend(nodetest.Object{"viewRequests": []string{}}) }},
			"a view of bookings": {"booking:" + r.taken, func() { r.lend(nodetest.Object{"viewConfirmed": []string{}}) }},
			"a resource":         {"queue:" + r.own, func() { r.lend(nodetest.Object{"resources": []string{}}) }},
			"a resource to another": {"queue:" + r.own, func() {
				r.Staff(http.MethodPut, "/management/resources/"+r.own, nodetest.Object{"providerPhone": "+966500000063"}).OK()
			}},
		} {
			hears(far, r.token, func() {
				r.lend(nodetest.Object{"resources": []string{r.own}, "viewConfirmed": []string{r.lent}, "viewRequests": []string{r.lent}})
			})
			loses(far, name, r.token, change.channel, change.take)
		}
		hears(far, r.token, func() { r.lend(nodetest.Object{"resources": []string{r.own, r.lent}}) })
		loses(far, "a resource that is deleted", r.token, "queue:"+r.lent, func() { r.Staff(http.MethodDelete, "/management/resources/"+r.lent, nil).OK() })
		again := dial(far, r.token)
		defer again.hangUp()
		assert.Zero(t, again.closed(1500*time.Millisecond), "what was told is told again every second")
	})
}

// hears waits until this node knows that a member may do more or less: until it
// does, it closes connections that were made before and after.
func hears(h *nodetest.Node, token string, change func()) {
	h.T.Helper()
	l := dial(h, token)
	defer l.hangUp()
	change()
	require.Equal(h.T, 3014, l.closed(nodetest.Patience))
}

// loses watches a channel until something is taken away, and requires that it
// cannot be watched within five seconds.
func loses(h *nodetest.Node, what, token, channel string, take func()) {
	h.T.Helper()
	before := dial(h, token)
	defer before.hangUp()
	require.Zero(h.T, before.subscribe(channel), what)
	take()
	assert.Equal(h.T, 3014, before.closed(5*time.Second), what)
	after := dial(h, token)
	defer after.hangUp()
	assert.NotZero(h.T, after.subscribe(channel), what)
}
