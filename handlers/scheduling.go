package handlers

import (
	"context"
	"encoding/json"
	"net/http"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/models"
)

// JoinBody is what joining takes, from the patient or from the desk.
type JoinBody struct {
	Type     string         `json:"type" required:"true" minLength:"1" maxLength:"64" doc:"The booking type's id."`
	Assign   *bool          `json:"assign" default:"true" doc:"false joins the queue."`
	Timeout  *float64       `json:"assignmentTimeout" doc:"Minutes until the booking expires if nobody takes it: 5 to 180, what is beyond is clamped; 60 by default."`
	Resource *filterBody    `json:"resourceFilters" doc:"Limits who may take the booking."`
	Note     string         `json:"note" maxLength:"2000"`
	Info     map[string]any `json:"bookingInfoCustomFields" doc:"Custom fields, kept and given back as info."`
}

// filterBody limits the resources a booking or a list is about.
type filterBody struct {
	Resource  string   `json:"resource" maxLength:"64"`
	Resources []string `json:"resources" maxItems:"100"`
	Category  string   `json:"category" maxLength:"200"`
}

func (f *filterBody) filters() booking.Filters {
	if f == nil {
		return booking.Filters{}
	}
	out := booking.Filters{Resources: f.Resources, Category: f.Category}
	if f.Resource != "" {
		out.Resources = append(out.Resources, f.Resource)
	}
	return out
}

// maxInfo bounds the custom fields of a booking, in bytes.
const maxInfo = 32 << 10

// join checks the form of a request to join.
func (b JoinBody) join() (booking.Join, error) {
	if b.Assign == nil || *b.Assign {
		return booking.Join{}, &models.Error{Code: models.CodeDateTime, Field: "assign", Detail: "Only queued bookings can be made here: send assign: false."}
	}
	info, err := json.Marshal(b.Info)
	if err != nil {
		return booking.Join{}, err
	}
	if len(info) > maxInfo {
		return booking.Join{}, models.Invalid("bookingInfoCustomFields", "Custom fields take at most %d bytes.", maxInfo)
	}
	return booking.Join{TypeID: b.Type, Timeout: b.Timeout, Filters: b.Resource.filters(), Note: b.Note, Info: b.Info}, nil
}

type customerIdentifier struct {
	ID        string `json:"id" maxLength:"64"`
	Phone     string `json:"phone" maxLength:"40" example:"+966500000001"`
	Email     string `json:"email" maxLength:"254"`
	FirstName string `json:"firstName" maxLength:"200"`
	LastName  string `json:"lastName" maxLength:"200"`
}

type deskJoinBody struct {
	JoinBody
	Customer *customerIdentifier `json:"customerIdentifier" doc:"By id, phone or e-mail address; a new one is made. Without it: somebody at the desk."`
	Priority int                 `json:"priority" minimum:"0" maximum:"100" doc:"0 is routine; a higher band is served first."`
}

func (s *Server) schedulingRoutes() {
	register(s, operation{
		method: http.MethodPut, path: "/management/scheduling/new", id: "createBooking", tag: "Bookings", who: staff,
		summary: "Put a patient into the queue",
		about:   "Answers the bare booking with the token and the address of the patient's page.",
		example: map[string]any{
			"type": exampleID, "assign": false, "assignmentTimeout": 60, "priority": 0,
			"customerIdentifier": map[string]any{"phone": "+966500000001", "firstName": "Mona"},
		},
	}, func(ctx context.Context, c caller, in *with[deskJoinBody]) (joinedView, error) {
		j, err := in.Body.join()
		if err != nil {
			return joinedView{}, err
		}
		j.Priority = in.Body.Priority
		var ref access.CustomerRef
		if w := in.Body.Customer; w != nil {
			ref = access.CustomerRef{ID: w.ID, Phone: w.Phone, Email: w.Email, FirstName: w.FirstName, LastName: w.LastName}
		}
		j.Customer = func(tx *store.Tx) (string, error) {
			person, err := s.o.Access.ResolveCustomerIn(tx, c.OrganizationID, ref)
			if err != nil {
				return "", err
			}
			return person.ID, nil
		}
		view, err := s.join(ctx, c, j, true)
		if err == nil {
			view.TicketURL = s.o.PublicURL + "/ticket/" + view.ID + "#" + view.TicketToken
		}
		return view, err
	})

	register(s, operation{
		method: http.MethodPut, path: "/customer/scheduling/new", id: "joinQueue", tag: "Customer", who: customers,
		summary: "Join a queue",
		about:   "Answers the booking with its place in the queue and a token that shows and cancels it without signing in.",
		example: map[string]any{"type": exampleID, "assign": false, "assignmentTimeout": 60},
	}, func(ctx context.Context, c caller, in *with[JoinBody]) (result[joinedView], error) {
		j, err := in.Body.join()
		if err != nil {
			return result[joinedView]{}, err
		}
		j.CustomerID = c.SubjectID
		view, err := s.join(ctx, c, j, false)
		return result[joinedView]{view}, err
	})
}

func (s *Server) join(ctx context.Context, c caller, j booking.Join, withCustomer bool) (joinedView, error) {
	b, place, err := s.o.Bookings.Join(ctx, c.OrganizationID, j)
	if err != nil {
		return joinedView{}, err
	}
	token, err := s.o.Access.TicketToken(b)
	if err != nil {
		return joinedView{}, err
	}
	view, err := s.showAt(ctx, c, withCustomer, b, place)
	return joinedView{BookingView: view, TicketToken: token}, err
}
