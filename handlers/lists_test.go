package handlers_test

import (
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
)

// bookingLists are the two lists of bookings, of a customer and of the desk.
func bookingLists(c *nodetest.Clinic, patient string) map[string]func(query string) nodetest.Response {
	list := func(path, token string) func(string) nodetest.Response {
		return func(query string) nodetest.Response {
			c.T.Helper()
			return c.Send(nodetest.Request{Method: http.MethodGet, Path: path + "?" + query, Token: token}).OK()
		}
	}
	return map[string]func(string) nodetest.Response{"the customer's": list("/customer/bookings", patient), "the desk's": list("/management/bookings", c.Key)}
}

func TestBookingLists_ShowEachBookingOnceWhileOthersAreMade(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		for _, who := range []string{"the customer's", "the desk's"} {
			for _, dateType := range []string{"createdAt", "dateTime"} {
				for _, direction := range []string{"asc", "desc"} {
					c := h.NewClinic()
					visit := c.NewType(nodetest.Object{"minutes": 10})
					c.NewResource(nil, visit)
					patient := c.Patient("+966500000071")
					book := func(day, military int) string {
						t.Helper()
						body := nodetest.Appointment(visit, nodetest.Day(day), military, nil)
						return h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient, Body: body}).OK().Str("result.id")
					}
					var want []string
					for i := range 5 {
						want = append(want, book(2+i, 1000))
					}
					if direction == "desc" {
						slices.Reverse(want)
					}
					list := bookingLists(c, patient)[who]
					query := "dateType=" + dateType + "&orderDirection=" + direction + "&limit=2&nextPageToken="
					page := list(query)
					got := page.Pluck("result", "id")
					for i := range 2 { // between the pages: a visit before all, and one next to those of the page before
						book(1, 1100+100*i)
						if direction == "asc" {
							book(2+2*i, 900)
						} else {
							book(6-2*i, 1100)
						}
						page = list(query + url.QueryEscape(page.Str("pagination.nextPageToken")))
						got = append(got, page.Pluck("result", "id")...)
					}
					assert.Equal(t, want, got[:len(want)], "%s list by %s, %s", who, dateType, direction)
				}
			}
		}
	})
}

func TestBookingLists_ApplyDatesStatusAndOrderToTheMomentOfTheirType(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nodetest.Object{"minutes": 10})
		c.NewResource(nil, visit)
		patient := c.Patient("+966500000072")
		var made []string
		for _, ahead := range []int{4, 2, 3} {
			body := nodetest.Appointment(visit, nodetest.Day(ahead), 1000, nil)
			made = append(made, h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient, Body: body}).OK().Str("result.id"))
		}
		c.Act("cancel", made[2], nil).OK()
		four, two, three := made[0], made[1], made[2]
		for who, list := range bookingLists(c, patient) {
			for query, want := range map[string][]string{
				"":                                      {four, three, two},
				"orderDirection=asc":                    {two, three, four},
				"dateType=createdAt":                    {three, two, four},
				"dateType=createdAt&orderDirection=asc": {four, two, three},
				"from=" + nodetest.Day(3):               {four, three},
				"to=" + nodetest.Day(3):                 {three, two},
				"from=" + nodetest.Day(2) + "T07:00:00Z&to=" + nodetest.Day(2) + "T07:00:00Z":                    {two},
				"from=" + nodetest.Day(2) + "T07:00:01Z&orderDirection=asc":                                      {three, four},
				"dateType=createdAt&from=" + nodetest.Day(1):                                                     {},
				"dateType=createdAt&from=" + nodetest.Day(0) + "&to=" + nodetest.Day(1) + "&orderDirection=desc": {three, two, four},
				"status=CANCELED": {three},
				"status=CONFIRMED,CANCELED&orderDirection=asc":    {two, three, four},
				"status=CONFIRMED&to=" + nodetest.Day(3):          {two},
				"status=PENDING_APPROVAL&dateType=createdAt":      {},
				"includes=customer,type,resource,invoice&limit=1": {four},
			} {
				assert.Equal(t, want, append([]string{}, list(query).Pluck("result", "id")...), "%s list: %s", who, query)
			}
			invoiced := list("includes=customer,type,resource,invoice").Members("result.0")
			assert.Contains(t, invoiced, "invoice", who)
			assert.Nil(t, invoiced["invoice"])
			assert.Contains(t, invoiced, "customer")
			assert.NotContains(t, list("includes=customer").Members("result.0"), "invoice", who)
		}
		one := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + four + "?includes=invoice", Token: patient}).OK()
		assert.Contains(t, one.Members("result"), "invoice")
	})
}
