package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/store"
	"nowserving/handlers/api"
)

type queueRef struct {
	ResourceID string `json:"resourceId" required:"true" minLength:"1" maxLength:"64"`
	Why
}

// waitingList is a page of the bookings that wait for a resource.
type waitingList struct {
	Result     []api.BookingView `json:"result" nullable:"false"`
	Pagination api.Pagination    `json:"pagination"`
	Total      int64             `json:"total" doc:"Waiting bookings on all pages."`
}

// PageInfo implements api.PagedAnswer.
func (l *waitingList) PageInfo() *api.Pagination { return &l.Pagination }

func (s *Server) queueRoutes() {
	example := map[string]any{"resourceId": exampleOther}
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/queue/next", ID: "callNext", Tag: "Queue", Roles: api.Staff,
		Summary: "Call the next patient",
		About:   "Takes the head of the resource's queue in one step: concurrent calls get different patients. QUE-EMPTY if the queue is empty.",
		Example: example,
	}, s.callNext)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/queue", ID: "getQueue", Tag: "Queue", Roles: api.Staff,
		Summary: "List the waiting bookings of a resource", About: "In the order in which they are called.",
	}, s.getQueue)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/queue/pause", ID: "pauseQueue", Tag: "Queue", Roles: api.Staff,
		Summary: "Pause a queue", About: "Nobody is called until it is resumed; who waits keeps waiting.", Example: example,
	}, s.pauseQueue)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/queue/resume", ID: "resumeQueue", Tag: "Queue", Roles: api.Staff,
		Summary: "Resume a queue", Example: example,
	}, s.resumeQueue)
}

func (s *Server) callNext(ctx context.Context, c api.Caller, in *api.Body[queueRef]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	return s.shown(ctx, c)(s.api.Bookings.Next(ctx, c.Scope(), in.Body.ResourceID))
}

type queueQuery struct {
	ResourceID string `query:"resourceId" required:"true" minLength:"1" maxLength:"64"`
	Limit      int    `query:"limit" default:"500" minimum:"1" doc:"At most 500; more are not given."`
	Token      string `query:"nextPageToken"`
}

func (s *Server) getQueue(ctx context.Context, c api.Caller, in *queueQuery) (waitingList, error) {
	page, err := s.api.Bookings.Queue(ctx, c.Scope(), in.ResourceID, min(in.Limit, maxBookings), in.Token)
	if err != nil {
		return waitingList{}, err
	}
	views, err := s.api.ViewBookings(ctx, c, true, page.Bookings)
	return waitingList{views, api.NextPage(page.Next), page.Total}, err
}

func (s *Server) pauseQueue(ctx context.Context, c api.Caller, in *api.Body[queueRef]) (api.Result[resourceView], error) {
	return s.setPaused(ctx, c, in.Body, true)
}

func (s *Server) resumeQueue(ctx context.Context, c api.Caller, in *api.Body[queueRef]) (api.Result[resourceView], error) {
	return s.setPaused(ctx, c, in.Body, false)
}

func (s *Server) setPaused(ctx context.Context, c api.Caller, ref queueRef, paused bool) (api.Result[resourceView], error) {
	ctx = store.Because(ctx, ref.Reason)
	r, err := s.api.Bookings.SetPaused(ctx, c.Scope(), ref.ResourceID, paused)
	if err != nil {
		return api.Result[resourceView]{}, err
	}
	s.api.Directory.Forget(c.OrganizationID)
	return showResource(r, c.Lang)
}
