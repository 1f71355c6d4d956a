package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/store"
)

type queueRef struct {
	ResourceID string `json:"resourceId" required:"true" minLength:"1" maxLength:"64"`
	Why
}

// waitingList is a page of the bookings that wait for a resource.
type waitingList struct {
	Result     []BookingView `json:"result" nullable:"false"`
	Pagination pagination    `json:"pagination"`
	Total      int64         `json:"total" doc:"Who waits, on all pages."`
}

func (l *waitingList) page() *pagination { return &l.Pagination }

func (s *Server) queueRoutes() {
	example := map[string]any{"resourceId": exampleOther}
	register(s, operation{
		method: http.MethodPost, path: "/management/queue/next", id: "callNext", tag: "Queue", who: staff,
		summary: "Call the next patient",
		about:   "Takes the head of the resource's queue in one step: two who call at once get two different patients. QUE-EMPTY when nobody waits.",
		example: example,
	}, func(ctx context.Context, c caller, in *with[queueRef]) (result[BookingView], error) {
		ctx = store.Because(ctx, in.Body.Reason)
		return s.shown(ctx, c)(s.o.Bookings.Next(ctx, c.scope(), in.Body.ResourceID))
	})

	type queueQuery struct {
		ResourceID string `query:"resourceId" required:"true" minLength:"1" maxLength:"64"`
		Limit      int    `query:"limit" default:"500" minimum:"1" doc:"At most 500; more are not given."`
		Token      string `query:"nextPageToken"`
	}
	register(s, operation{
		method: http.MethodGet, path: "/management/queue", id: "getQueue", tag: "Queue", who: staff,
		summary: "List who waits for a resource", about: "The next to be served first.",
	}, func(ctx context.Context, c caller, in *queueQuery) (waitingList, error) {
		page, err := s.o.Bookings.Queue(ctx, c.scope(), in.ResourceID, min(in.Limit, maxBookings), in.Token)
		if err != nil {
			return waitingList{}, err
		}
		views, err := s.showAll(ctx, c, true, page.Bookings)
		return waitingList{views, tokenOf(page.Next), page.Total}, err
	})

	for _, set := range []struct {
		verb, summary, about string
		paused               bool
	}{
		{"pause", "Pause a queue", "Nobody is called until it is resumed; who waits keeps waiting.", true},
		{"resume", "Resume a queue", "", false},
	} {
		register(s, operation{
			method: http.MethodPost, path: "/management/queue/" + set.verb, id: set.verb + "Queue", tag: "Queue", who: staff,
			summary: set.summary, about: set.about, example: example,
		}, func(ctx context.Context, c caller, in *with[queueRef]) (result[resourceView], error) {
			ctx = store.Because(ctx, in.Body.Reason)
			r, err := s.o.Bookings.SetPaused(ctx, c.scope(), in.Body.ResourceID, set.paused)
			if err != nil {
				return result[resourceView]{}, err
			}
			s.directory.forget(c.OrganizationID)
			return showResource(r, c.Lang)
		})
	}
}
