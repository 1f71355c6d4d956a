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

// customerView is a customer as staff and the customer see it.
type customerView struct {
	ID        string        `json:"id"`
	Phone     string        `json:"phone,omitempty"`
	Email     string        `json:"email,omitempty"`
	FirstName string        `json:"firstName"`
	LastName  string        `json:"lastName"`
	Note      string        `json:"note"`
	Data      models.Fields `json:"data"`
	CreatedAt models.Moment `json:"createdAt"`
}

func customerOf(c *models.Customer) customerView {
	data := c.Data
	if data == nil {
		data = models.Fields{}
	}
	phone, email := c.Contact()
	return customerView{c.ID, phone, email, c.FirstName, c.LastName, c.Note, data, models.At(c.CreatedAt)}
}

func viewCustomer(c *models.Customer, err error) (result[customerView], error) {
	if err != nil {
		return result[customerView]{}, err
	}
	return result[customerView]{customerOf(c)}, nil
}

// CustomerBody changes a customer: what is absent stays, an empty text clears.
type CustomerBody struct {
	Phone     *string       `json:"phone" maxLength:"40" example:"+966500000001"`
	Email     *string       `json:"email" maxLength:"254"`
	FirstName *string       `json:"firstName" maxLength:"200"`
	LastName  *string       `json:"lastName" maxLength:"200"`
	Note      *string       `json:"note" maxLength:"2000"`
	Data      models.Fields `json:"data" doc:"Custom fields; replaced as a whole."`
}

// maxData bounds the custom fields of a customer, in bytes.
const maxData = 32 << 10

// profileBody changes the customer who asks.
type profileBody struct {
	CustomerBody
	Code string `json:"code" maxLength:"20" doc:"The one-time code that went to a new phone number or e-mail address (/auth/otp/request). With it they sign in with the new one from then on; without, it is shown and written to, and they sign in with the one before."`
}

func (s *Server) updateCustomer(ctx context.Context, c caller, id string, b CustomerBody, code string) (result[customerView], error) {
	data, err := json.Marshal(b.Data)
	if err != nil {
		return result[customerView]{}, err
	}
	if len(data) > maxData {
		return result[customerView]{}, models.Invalid("data", "Custom fields take at most %d bytes.", maxData)
	}
	if b.Phone != nil {
		phone := c.international(*b.Phone)
		b.Phone = &phone
	}
	change := access.CustomerChange{
		Phone: b.Phone, Email: b.Email, FirstName: b.FirstName, LastName: b.LastName, Note: b.Note, Data: b.Data,
		Own: c.Kind == access.KindCustomer, Code: code, Network: s.guesser(c),
	}
	update := func() (*models.Customer, error) { return s.o.Access.UpdateCustomer(ctx, c.customers(), id, change) }
	if code == "" {
		return viewCustomer(update())
	}
	var changed *models.Customer
	err = s.guess(ctx, c.Address, c.SubjectID, func() error {
		changed, err = update()
		return err
	})
	return viewCustomer(changed, err)
}

// set changes a value where a new one was given.
func set[T any](value *T, given *T) {
	if given != nil {
		*value = *given
	}
}

// providerCustomers is what the API reference says of the customers that a
// provider reaches.
const providerCustomers = "A provider reaches the customers with a booking that has one of their resources or waits for one."

func (s *Server) peopleRoutes() {
	register(s, operation{
		method: http.MethodGet, path: "/management/customers", id: "listCustomers", tag: "Customers", who: staff, summary: "List customers",
		about: providerCustomers,
	}, func(ctx context.Context, c caller, in *paging) (list[customerView], error) {
		page := in.page()
		rows, err := s.o.Access.Customers(ctx, c.customers(), page)
		return listOf(rows, page.Limit, func(c *models.Customer) string { return c.ID }, customerOf), err
	})
	type byCustomer struct {
		ID string `path:"customerId" maxLength:"64"`
	}
	register(s, operation{
		method: http.MethodGet, path: "/management/customers/{customerId}", id: "getCustomer", tag: "Customers", who: staff, summary: "Get a customer",
		about: providerCustomers,
	}, func(ctx context.Context, c caller, in *byCustomer) (result[customerView], error) {
		return viewCustomer(s.o.Access.Customer(ctx, c.customers(), in.ID))
	})
	type mergeBody struct {
		CustomerID  string `json:"customerId" required:"true" minLength:"1" maxLength:"64" doc:"The record that stays."`
		DuplicateID string `json:"duplicateId" required:"true" minLength:"1" maxLength:"64" doc:"The record whose bookings it takes over."`
	}
	register(s, operation{
		method: http.MethodPost, path: "/management/customers/merge", id: "mergeCustomers", tag: "Customers", who: staff &^ provider,
		summary: "Merge two records of one person",
		about: "customerId stays: it takes over every booking of duplicateId, and the address, name, note and data that it lacks. Each booking keeps the name " +
			"it was made for. The duplicate's sessions end; with an address of it that the record did not lack nobody signs in any more.",
		example: map[string]any{"customerId": exampleID, "duplicateId": exampleOther},
	}, func(ctx context.Context, c caller, in *with[mergeBody]) (result[customerView], error) {
		var waiting []models.Booking
		merged, err := s.o.Access.Merge(ctx, c.customers(), in.Body.CustomerID, in.Body.DuplicateID,
			func(tx *store.Tx, keep, duplicate *models.Customer) (err error) {
				waiting, err = booking.Reassign(tx, duplicate, keep)
				return err
			})
		s.o.Bookings.Republish(ctx, waiting)
		return viewCustomer(merged, err)
	})
	type customerChange struct {
		ID   string `path:"customerId" maxLength:"64"`
		Body CustomerBody
	}
	register(s, operation{
		method: http.MethodPut, path: "/management/customers/{customerId}", id: "updateCustomer", tag: "Customers", who: staff,
		summary: "Change a customer",
		about:   "Omitted fields are unchanged. Another phone number or e-mail address ends the customer's sessions; a provider may not change it. " + providerCustomers,
		example: map[string]any{"firstName": "Mona", "note": "Uses a wheelchair."},
	}, func(ctx context.Context, c caller, in *customerChange) (result[customerView], error) {
		return s.updateCustomer(ctx, c, in.ID, in.Body, "")
	})
}
