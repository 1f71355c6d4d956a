package handlers_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// A page token is opaque and good for its own query alone, for a day.
func TestPageTokensAreBoundToTheirQuery(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, other := h.NewClinic(), h.NewClinic()
		for range 3 {
			kind := c.NewType(nil)
			c.NewResource(nodetest.Object{"category": "x"}, kind)
			c.Join(kind, nil)
			other.NewType(nil)
		}
		get := func(path string) nodetest.Response { return c.Staff(http.MethodGet, path, nil) }
		offers := func(body nodetest.Object) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: c.ID, Body: body})
		}
		token := func(a nodetest.Response) string { return a.OK().Str("pagination.nextPageToken") }
		types, bookings := token(get("/management/types?limit=1")), token(get("/management/bookings?limit=1"))
		offered := token(offers(nodetest.Object{"limit": 1, "showAll": true}))
		get("/management/types?limit=2&nextPageToken=" + types).OK() // the length of a page is no part of the query
		get("/management/bookings?nextPageToken=" + bookings).OK()
		offers(nodetest.Object{"limit": 2, "showAll": true, "nextPageToken": offered}).OK()

		madeUp := base64.RawURLEncoding.EncodeToString([]byte("12"))
		for _, path := range []string{
			"/management/types?nextPageToken=" + bookings, "/management/resources?nextPageToken=" + types,
			"/management/bookings?orderDirection=asc&nextPageToken=" + bookings, "/management/bookings?status=CONFIRMED&nextPageToken=" + bookings,
			"/management/types?nextPageToken=" + madeUp, "/management/bookings?nextPageToken=" + madeUp, "/management/types?nextPageToken=x",
			"/management/types?nextPageToken=" + types[:len(types)-2] + "xx", "/management/audit?nextPageToken=" + types,
		} {
			get(path).Refused(http.StatusBadRequest, models.CodePageToken)
		}
		other.Staff(http.MethodGet, "/management/types?nextPageToken="+types, nil).Refused(http.StatusBadRequest, models.CodePageToken)
		offers(nodetest.Object{"limit": 1, "nextPageToken": offered}).Refused(http.StatusBadRequest, models.CodePageToken)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/resources", App: c.ID, Body: nodetest.Object{"showAll": true, "nextPageToken": offered}}).
			Refused(http.StatusBadRequest, models.CodePageToken)
		for _, secret := range []string{c.ID, nodetest.Scalar[string](h, "SELECT min(id) FROM booking_types WHERE organization_id = ?", c.ID)} {
			raw, err := base64.RawURLEncoding.DecodeString(types)
			require.NoError(t, err)
			assert.NotContains(t, string(raw), secret)
		}
	})
}

// A list goes on where it was when the row that a page ended with is gone.
func TestPagesByNameContinueInTheLanguageOfTheFirst(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		long := strings.Repeat("ع", 199) // longer than any limit for tokens would allow if it counted
		want := []string{}
		for i, english := range []string{"c", "b", "a"} {
			name := nodetest.Object{"en": english, "ar": long + fmt.Sprint(i)}
			want = append(want, c.NewResource(nodetest.Object{"name": english, "name_translations": name}, kind))
		}
		for _, languages := range [][]string{{"ar", "ar", "ar"}, {"ar", "en", "en"}} {
			got, token := []string{}, ""
			for _, lang := range languages {
				body := nodetest.Object{"limit": 1, "sortBy": "name"}
				if token != "" {
					body["nextPageToken"] = token
				}
				a := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/resources", App: c.ID, Lang: lang, Body: body}).OK()
				got = append(got, a.Str("result.0.id"))
				token, _ = nodetest.At(a.Body, "pagination.nextPageToken").(string)
			}
			assert.Equal(t, want, got, "%v", languages)
			assert.Empty(t, token)
		}
	})
}

func TestAListContinuesAfterADeletedRow(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		var kinds, rooms []string
		for i := range 5 {
			kinds = append(kinds, c.NewType(nil))
			rooms = append(rooms, c.NewResource(nodetest.Object{"name": fmt.Sprintf("Room %d", 5-i)}, kinds[0]))
		}
		read := func(method, path string, body nodetest.Object, gone func()) []string {
			page := func(token string) nodetest.Response {
				if body != nil {
					body["limit"], body["nextPageToken"] = 2, token
					return h.Send(nodetest.Request{Method: method, Path: path, App: c.ID, Body: body}).OK()
				}
				return c.Staff(method, path+"?limit=2&nextPageToken="+token, nil).OK()
			}
			first := page("")
			gone()
			return append(first.Pluck("result", "id"), page(first.Str("pagination.nextPageToken")).Pluck("result", "id")...)
		}
		drop := func(path, id string) func() {
			return func() { c.Staff(http.MethodDelete, path+id, nil).OK() }
		}
		assert.Equal(t, kinds[:4], read(http.MethodGet, "/management/types", nil, drop("/management/types/", kinds[1])))
		kinds = slices.Delete(kinds, 1, 2)
		assert.Equal(t, kinds, read(http.MethodPost, "/availability/types", nodetest.Object{"showAll": true}, drop("/management/types/", kinds[1])))
		byName := nodetest.Object{"showAll": true, "sortBy": "name"}
		assert.Equal(t, []string{rooms[4], rooms[3], rooms[2], rooms[1]}, read(http.MethodPost, "/availability/resources", byName, drop("/management/resources/", rooms[3])))
		down := nodetest.Object{"showAll": true, "sortByDirection": "desc"}
		assert.Equal(t, []string{rooms[4], rooms[2], rooms[1], rooms[0]}, read(http.MethodPost, "/availability/resources", down, drop("/management/resources/", rooms[2])))
	})
}

// Bookings are listed in the order of the moment that from and to apply to.
func TestBookingsAreInTheOrderOfTheirDates(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"minutes": 30})
		c.NewResource(nil, kind)
		var made []string
		for _, ahead := range []int{5, 2, 9, 2, 7} {
			made = append(made, c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Appointment(kind, nodetest.Day(ahead), 900+100*len(made), nil)).OK().Str("id"))
		}
		queued := c.Join(kind, nil).Str("id")
		visits := []string{queued, made[1], made[3], made[0], made[4], made[2]}
		all := func(query string, limit int) (ids []string) {
			for token := ""; ; {
				page := c.Staff(http.MethodGet, fmt.Sprintf("/management/bookings?%s&limit=%d&nextPageToken=%s", query, limit, url.QueryEscape(token)), nil).OK()
				ids = append(ids, page.Pluck("result", "id")...)
				if page.At("pagination.hasMore") != true {
					return ids
				}
				token = page.Str("pagination.nextPageToken")
			}
		}
		for _, limit := range []int{1, 2, 4, 100} {
			assert.Equal(t, visits, all("orderDirection=asc", limit))
			assert.Equal(t, append(slices.Clone(made), queued), all("dateType=createdAt&orderDirection=asc", limit))
		}
		down := slices.Clone(visits)
		slices.Reverse(down)
		assert.Equal(t, down, all("", 3))

		t.Log("those of one moment are in the order of their making")
		h.Exec("UPDATE bookings SET created_at = ?", time.Now().UTC())
		assert.Equal(t, append(slices.Clone(made), queued), all("dateType=createdAt&orderDirection=asc", 2))
	})
}
