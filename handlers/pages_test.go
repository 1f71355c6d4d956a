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

	"nowserving/models"
)

// A page token is opaque and good for its own query alone, for a day.
func TestPageTokensAreBoundToTheirQuery(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c, other := h.newClinic(), h.newClinic()
		for range 3 {
			kind := c.newType(nil)
			c.newResource(object{"category": "x"}, kind)
			c.join(kind, nil)
			other.newType(nil)
		}
		get := func(path string) answer { return c.staff(http.MethodGet, path, nil) }
		offers := func(body object) answer {
			return h.send(request{method: http.MethodPost, path: "/availability/types", app: c.id, body: body})
		}
		token := func(a answer) string { return a.ok().str("pagination.nextPageToken") }
		types, bookings := token(get("/management/types?limit=1")), token(get("/management/bookings?limit=1"))
		offered := token(offers(object{"limit": 1, "showAll": true}))
		get("/management/types?limit=2&nextPageToken=" + types).ok() // the length of a page is no part of the query
		get("/management/bookings?nextPageToken=" + bookings).ok()
		offers(object{"limit": 2, "showAll": true, "nextPageToken": offered}).ok()

		madeUp := base64.RawURLEncoding.EncodeToString([]byte("12"))
		for _, path := range []string{
			"/management/types?nextPageToken=" + bookings, "/management/resources?nextPageToken=" + types,
			"/management/bookings?orderDirection=asc&nextPageToken=" + bookings, "/management/bookings?status=CONFIRMED&nextPageToken=" + bookings,
			"/management/types?nextPageToken=" + madeUp, "/management/bookings?nextPageToken=" + madeUp, "/management/types?nextPageToken=x",
			"/management/types?nextPageToken=" + types[:len(types)-2] + "xx", "/management/audit?nextPageToken=" + types,
		} {
			get(path).refused(http.StatusBadRequest, models.CodePageToken)
		}
		other.staff(http.MethodGet, "/management/types?nextPageToken="+types, nil).refused(http.StatusBadRequest, models.CodePageToken)
		offers(object{"limit": 1, "nextPageToken": offered}).refused(http.StatusBadRequest, models.CodePageToken)
		h.send(request{method: http.MethodPost, path: "/availability/resources", app: c.id, body: object{"showAll": true, "nextPageToken": offered}}).
			refused(http.StatusBadRequest, models.CodePageToken)
		for _, secret := range []string{c.id, scalar[string](h, "SELECT min(id) FROM booking_types WHERE organization_id = ?", c.id)} {
			raw, err := base64.RawURLEncoding.DecodeString(types)
			require.NoError(t, err)
			assert.NotContains(t, string(raw), secret)
		}
	})
}

// A list goes on where it was when the row that a page ended with is gone.
func TestPagesByNameGoOnInTheLanguageOfTheFirst(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		long := strings.Repeat("ع", 199) // longer than any limit for tokens would allow if it counted
		want := []string{}
		for i, english := range []string{"c", "b", "a"} {
			name := object{"en": english, "ar": long + fmt.Sprint(i)}
			want = append(want, c.newResource(object{"name": english, "name_translations": name}, kind))
		}
		for _, languages := range [][]string{{"ar", "ar", "ar"}, {"ar", "en", "en"}} {
			got, token := []string{}, ""
			for _, lang := range languages {
				body := object{"limit": 1, "sortBy": "name"}
				if token != "" {
					body["nextPageToken"] = token
				}
				a := h.send(request{method: http.MethodPost, path: "/availability/resources", app: c.id, lang: lang, body: body}).ok()
				got = append(got, a.str("result.0.id"))
				token, _ = at(a.body, "pagination.nextPageToken").(string)
			}
			assert.Equal(t, want, got, "%v", languages)
			assert.Empty(t, token)
		}
	})
}

func TestAListGoesOnWhenItsAnchorIsGone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		var kinds, rooms []string
		for i := range 5 {
			kinds = append(kinds, c.newType(nil))
			rooms = append(rooms, c.newResource(object{"name": fmt.Sprintf("Room %d", 5-i)}, kinds[0]))
		}
		read := func(method, path string, body object, gone func()) []string {
			page := func(token string) answer {
				if body != nil {
					body["limit"], body["nextPageToken"] = 2, token
					return h.send(request{method: method, path: path, app: c.id, body: body}).ok()
				}
				return c.staff(method, path+"?limit=2&nextPageToken="+token, nil).ok()
			}
			first := page("")
			gone()
			return append(first.pluck("result", "id"), page(first.str("pagination.nextPageToken")).pluck("result", "id")...)
		}
		drop := func(path, id string) func() {
			return func() { c.staff(http.MethodDelete, path+id, nil).ok() }
		}
		assert.Equal(t, kinds[:4], read(http.MethodGet, "/management/types", nil, drop("/management/types/", kinds[1])))
		kinds = slices.Delete(kinds, 1, 2)
		assert.Equal(t, kinds, read(http.MethodPost, "/availability/types", object{"showAll": true}, drop("/management/types/", kinds[1])))
		byName := object{"showAll": true, "sortBy": "name"}
		assert.Equal(t, []string{rooms[4], rooms[3], rooms[2], rooms[1]}, read(http.MethodPost, "/availability/resources", byName, drop("/management/resources/", rooms[3])))
		down := object{"showAll": true, "sortByDirection": "desc"}
		assert.Equal(t, []string{rooms[4], rooms[2], rooms[1], rooms[0]}, read(http.MethodPost, "/availability/resources", down, drop("/management/resources/", rooms[2])))
	})
}

// Bookings are listed in the order of the moment that from and to apply to.
func TestBookingsAreInTheOrderOfTheirDates(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(object{"minutes": 30})
		c.newResource(nil, kind)
		var made []string
		for _, ahead := range []int{5, 2, 9, 2, 7} {
			made = append(made, c.staff(http.MethodPut, "/management/scheduling/new", appointment(kind, day(ahead), 900+100*len(made), nil)).ok().str("id"))
		}
		queued := c.join(kind, nil).str("id")
		visits := []string{queued, made[1], made[3], made[0], made[4], made[2]}
		all := func(query string, limit int) (ids []string) {
			for token := ""; ; {
				page := c.staff(http.MethodGet, fmt.Sprintf("/management/bookings?%s&limit=%d&nextPageToken=%s", query, limit, url.QueryEscape(token)), nil).ok()
				ids = append(ids, page.pluck("result", "id")...)
				if page.at("pagination.hasMore") != true {
					return ids
				}
				token = page.str("pagination.nextPageToken")
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
		h.exec("UPDATE bookings SET created_at = ?", time.Now().UTC())
		assert.Equal(t, append(slices.Clone(made), queued), all("dateType=createdAt&orderDirection=asc", 2))
	})
}
