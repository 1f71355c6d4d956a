package handlers

import (
	"context"
	"net/http"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/store"
)

func (s *Server) customerRoutes() {
	type myQuery struct {
		BookingQuery
		Resource string `query:"resource" doc:"A resource's id."`
		Limit    int    `query:"limit" default:"10" minimum:"1" doc:"At most 100; more are not given."`
	}
	register(s, operation{
		method: http.MethodGet, path: "/customer/bookings", id: "listMyBookings", tag: "Customer", who: customers,
		summary: "List my bookings", about: "With status=PENDING_ASSIGNMENT: my places in queues.",
	}, func(ctx context.Context, c caller, in *myQuery) (list[BookingView], error) {
		return s.listBookings(ctx, c, in.BookingQuery, min(in.Limit, maxLimit), func(f *booking.Filter) {
			f.Resources = fields(in.Resource)
		})
	})

	type myBooking struct {
		ID       string `path:"bookingId" maxLength:"64"`
		Includes string `query:"includes" doc:"Related data, separated by comma: customer, type, resource."`
	}
	register(s, operation{
		method: http.MethodGet, path: "/customer/bookings/{bookingId}", id: "getMyBooking", tag: "Customer", who: patients,
		summary: "Get my booking", about: "Also with the token of its ticket.",
	}, func(ctx context.Context, c caller, in *myBooking) (result[BookingView], error) {
		b, position, err := s.o.Bookings.Watch(ctx, c.scope(), in.ID)
		if err != nil {
			return result[BookingView]{}, err
		}
		var place *booking.Place
		if position > 0 {
			at, err := s.o.Bookings.PlaceAt(ctx, b, position)
			if err != nil {
				return result[BookingView]{}, err
			}
			place = &at
		}
		view, err := s.showAt(ctx, c, c.Kind == access.KindCustomer && includes(in.Includes, "customer"), b, place)
		return result[BookingView]{view}, err
	})

	register(s, operation{
		method: http.MethodPost, path: "/customer/bookings/cancel", id: "cancelMyBooking", tag: "Customer", who: patients,
		summary: "Leave the queue, or cancel an appointment", about: "Until the visit begins. Also with the token of its ticket.",
		example: map[string]any{"bookingId": exampleID},
	}, func(ctx context.Context, c caller, in *with[cancelBody]) (result[BookingView], error) {
		ctx = store.Because(ctx, in.Body.Reason)
		b, err := s.o.Bookings.Cancel(ctx, c.scope(), in.Body.BookingID, in.Body.Reason)
		if err != nil {
			return result[BookingView]{}, err
		}
		return result[BookingView]{s.showChanged(ctx, c, false, b, nil)}, nil
	})

	register(s, operation{
		method: http.MethodGet, path: "/customer/profile", id: "getMyProfile", tag: "Customer", who: customers, summary: "Get my profile",
	}, func(ctx context.Context, c caller, _ *struct{}) (result[customerView], error) {
		return viewCustomer(s.o.Access.Customer(ctx, c.customers(), c.SubjectID))
	})
	register(s, operation{
		method: http.MethodPut, path: "/customer/profile", id: "updateMyProfile", tag: "Customer", who: customers,
		summary: "Change my profile", about: "What is absent stays. Another phone number or e-mail address to sign in with needs the code that went there.", example: map[string]any{"firstName": "Mona", "lastName": "Abdullah"},
	}, func(ctx context.Context, c caller, in *with[profileBody]) (result[customerView], error) {
		return s.updateCustomer(ctx, c, c.SubjectID, in.Body.CustomerBody, in.Body.Code)
	})
}
