package handlers

import (
	"context"
	"net/http"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/handlers/api"
)

func (s *Server) customerRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customer/bookings", ID: "listMyBookings", Tag: "Customer", Roles: api.Customers,
		Summary: "List my bookings", About: "With status=PENDING_ASSIGNMENT: my places in queues.",
	}, s.listMyBookings)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customer/bookings/{bookingId}", ID: "getMyBooking", Tag: "Customer", Roles: api.Patients,
		Summary: "Get my booking", About: "A ticket token is accepted too.",
	}, s.getMyBooking)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/customer/bookings/cancel", ID: "cancelMyBooking", Tag: "Customer", Roles: api.Patients,
		Summary: "Leave the queue, or cancel an appointment", About: "Until the visit begins. A ticket token is accepted too.",
		Example: map[string]any{"bookingId": exampleID},
	}, s.cancelMyBooking)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customer/profile", ID: "getMyProfile", Tag: "Customer", Roles: api.Customers, Summary: "Get my profile",
	}, s.getMyProfile)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/customer/profile", ID: "updateMyProfile", Tag: "Customer", Roles: api.Customers, MaxBody: uploadBody,
		Summary: "Change my profile", About: "Omitted fields are unchanged. Another phone number or e-mail address to sign in with needs the code that went there.", Example: map[string]any{"firstName": "Mona", "lastName": "Abdullah"},
	}, s.updateMyProfile)
}

type myBookingsQuery struct {
	BookingQuery
	Resource string `query:"resource" doc:"A resource's id."`
	Limit    int    `query:"limit" default:"10" minimum:"1" doc:"At most 100; more are not given."`
}

func (s *Server) listMyBookings(ctx context.Context, c api.Caller, in *myBookingsQuery) (api.List[api.BookingView], error) {
	return s.pageOfBookings(ctx, c, in.BookingQuery, min(in.Limit, api.MaxPage), func(f *booking.Filter) {
		f.Resources = fields(in.Resource)
	})
}

type myBooking struct {
	ID       string `path:"bookingId" maxLength:"64"`
	Includes string `query:"includes" doc:"Related data, separated by comma: customer, type, resource, invoice."`
}

func (s *Server) getMyBooking(ctx context.Context, c api.Caller, in *myBooking) (api.Result[api.BookingView], error) {
	b, position, err := s.api.Bookings.Watch(ctx, c.Scope(), in.ID)
	if err != nil {
		return api.Result[api.BookingView]{}, err
	}
	var place *booking.Place
	if position > 0 {
		at, err := s.api.Bookings.PlaceAt(ctx, b, position)
		if err != nil {
			return api.Result[api.BookingView]{}, err
		}
		place = &at
	}
	view, err := s.api.ViewBookingAt(ctx, c, c.Kind == access.KindCustomer && includes(in.Includes, "customer"), b, place)
	if includes(in.Includes, "invoice") {
		view.Invoice = noInvoice
	}
	return api.Result[api.BookingView]{Result: view}, err
}

func (s *Server) cancelMyBooking(ctx context.Context, c api.Caller, in *api.Body[cancelBody]) (api.Result[api.BookingView], error) {
	ctx = store.Because(ctx, in.Body.Reason)
	b, err := s.api.Bookings.Cancel(ctx, c.Scope(), in.Body.BookingID, in.Body.Reason)
	if err != nil {
		return api.Result[api.BookingView]{}, err
	}
	return api.Result[api.BookingView]{Result: s.api.ViewChanged(ctx, c, false, b, nil)}, nil
}

func (s *Server) getMyProfile(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[customerView], error) {
	customer, err := s.api.Customers.Get(ctx, c.CustomerScope(), c.SubjectID)
	return viewProfile(c, customer, err)
}

func (s *Server) updateMyProfile(ctx context.Context, c api.Caller, in *api.Body[profileBody]) (api.Result[customerView], error) {
	return s.changeCustomer(ctx, c, c.SubjectID, in.Body.CustomerBody, in.Body.Code)
}
