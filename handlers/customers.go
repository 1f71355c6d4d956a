package handlers

import (
	"context"
	"encoding/json"
	"net/http"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/catalog"
	"nowserving/booking/customers"
	customfields "nowserving/booking/fields"
	"nowserving/booking/files"
	"nowserving/booking/store"
	"nowserving/handlers/api"
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

// viewProfile is viewCustomer for the customer themselves, or for staff.
func viewProfile(c api.Caller, customer *models.Customer, err error) (api.Result[customerView], error) {
	view, err := viewCustomer(customer, err)
	if err == nil {
		view.Result.Data = c.ShownData(view.Result.Data)
	}
	return view, err
}

func viewCustomer(c *models.Customer, err error) (api.Result[customerView], error) {
	if err != nil {
		return api.Result[customerView]{}, err
	}
	return api.Result[customerView]{Result: customerOf(c)}, nil
}

// CustomerBody changes a customer. Omitted fields are unchanged; empty ones are
// cleared.
type CustomerBody struct {
	Phone     *string       `json:"phone" maxLength:"40" example:"+966500000001"`
	Email     *string       `json:"email" maxLength:"254"`
	FirstName *string       `json:"firstName" maxLength:"200"`
	LastName  *string       `json:"lastName" maxLength:"200"`
	Note      *string       `json:"note" maxLength:"2000"`
	Data      models.Fields `json:"data" doc:"Values of the fields of GET /customFields/customer, by id; replaced as a whole. Those that only staff see stay when customers change theirs. Any values, while the organization has no custom field of customers. Photos and files are uploaded as in bookingInfoCustomFields of PUT /customer/scheduling/new."`
}

// maxFields bounds the custom fields of a customer or a booking and the
// configuration of an organization, in bytes of JSON.
const maxFields = 32 << 10

// checkFields refuses the fields of a body's member that are larger than maxFields, apart
// from the contents of their uploads.
func checkFields(member string, fields models.Fields) error {
	data, err := json.Marshal(files.Bare(fields))
	if err == nil && len(data) > maxFields {
		err = models.Invalid(member, "It takes at most %d bytes.", maxFields)
	}
	return err
}

// profileBody changes the calling customer.
type profileBody struct {
	CustomerBody
	Code string `json:"code" maxLength:"20" doc:"The one-time code that went to a new phone number or e-mail address (/auth/otp/request). With it they sign in with the new one from then on; without, it is shown and written to, and they sign in with the one before."`
}

// changeCustomer changes a customer. The code proves a new phone number or e-mail
// address; it may be empty.
func (s *Server) changeCustomer(ctx context.Context, c api.Caller, id string, b CustomerBody, code string) (api.Result[customerView], error) {
	if err := checkFields("data", b.Data); err != nil {
		return api.Result[customerView]{}, err
	}
	if b.Phone != nil {
		phone := c.International(*b.Phone)
		b.Phone = &phone
	}
	data, defined, err := s.customerData(ctx, c, b.Data)
	if err != nil {
		return api.Result[customerView]{}, err
	}
	change := customers.Change{
		Phone: b.Phone, Email: b.Email, FirstName: b.FirstName, LastName: b.LastName, Note: b.Note, Data: data, Fields: defined,
		Own: c.Kind == access.KindCustomer, Code: code, Network: s.api.HashedNetwork(c),
	}
	update := func() (*models.Customer, error) {
		return s.updateWithFiles(ctx, c, id, change)
	}
	if code == "" {
		changed, err := update()
		return viewProfile(c, changed, err)
	}
	var changed *models.Customer
	err = s.guess(ctx, c.Address, c.SubjectID, func() (err error) {
		changed, err = update()
		return err
	})
	return viewProfile(c, changed, err)
}

// customerData checks the values of a customer's custom fields and returns them in the
// form they are stored in, with the definitions. Without a definition beyond the core
// fields, any values are kept. Customers give every required field.
func (s *Server) customerData(ctx context.Context, c api.Caller, data models.Fields) (models.Fields, models.CustomFields, error) {
	if data == nil {
		return nil, models.CustomFields{}, nil
	}
	defined, err := s.api.Catalog.CustomFields(ctx, c.OrganizationID, models.CustomerFields)
	if err != nil {
		return nil, defined, err
	}
	own := customfields.BeyondCore(defined.Fields)
	if len(own) == 0 {
		return data, defined, nil
	}
	form := customfields.Form{Fields: own, Patient: c.Kind == access.KindCustomer}
	if c.Organization != nil {
		form.Country = catalog.CountryOf(&c.Organization.Organization)
	}
	answers, err := form.Check(customfields.Part{
		Member: "data", Values: data, Has: func(*models.FormField) bool { return true }, Required: form.Patient,
	})
	if err != nil {
		return nil, defined, err
	}
	return answers.Of("data"), defined, nil
}

// updateWithFiles changes a customer and stores the files in the data. It stores nothing
// if the caller may not reach the customer.
func (s *Server) updateWithFiles(ctx context.Context, c api.Caller, id string, change customers.Change) (*models.Customer, error) {
	if change.Data == nil {
		return s.api.Access.UpdateCustomer(ctx, c.CustomerScope(), id, change)
	}
	if _, err := s.api.Customers.Get(ctx, c.CustomerScope(), id); err != nil {
		return nil, err
	}
	data, uploads, err := s.opts.Files.Replace(ctx, files.Values{
		OrganizationID: c.OrganizationID, Field: "data", Fields: change.Data, Kind: files.KindsOf(customfields.BeyondCore(change.Fields.Fields)),
	})
	if err != nil {
		return nil, err
	}
	change.Data = data
	change.Also = func(tx *store.Tx, changed *models.Customer) error { return uploads.SaveProfile(tx, changed.ID) }
	changed, err := s.api.Access.UpdateCustomer(ctx, c.CustomerScope(), id, change)
	if err != nil {
		uploads.Discard(ctx)
	}
	return changed, err
}

// set changes a value where a new one was given.
func set[T any](value *T, given *T) {
	if given != nil {
		*value = *given
	}
}

// providerCustomers describes in the API reference which customers a provider
// reaches.
const providerCustomers = "A provider reaches the customers with a booking that has one of their resources or waits for one."

func (s *Server) peopleRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/customers", ID: "listCustomers", Tag: "Customers", Roles: api.Staff, Summary: "List customers",
		About: providerCustomers,
	}, s.listCustomers)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/customers/{customerId}", ID: "getCustomer", Tag: "Customers", Roles: api.Staff, Summary: "Get a customer",
		About: providerCustomers,
	}, s.getCustomer)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/customers/merge", ID: "mergeCustomers", Tag: "Customers", Roles: api.Staff &^ api.Provider,
		Summary: "Merge two records of one person",
		About: "customerId stays: it takes over every booking of duplicateId, and the address, name, note and data that it lacks. Each booking keeps the name " +
			"it was made for. The duplicate's sessions end; its addresses no longer sign in, except those that the record lacked.",
		Example: map[string]any{"customerId": exampleID, "duplicateId": exampleOther},
	}, s.mergeCustomers)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/customers/{customerId}", ID: "updateCustomer", Tag: "Customers", Roles: api.Staff, MaxBody: uploadBody,
		Summary: "Change a customer",
		About:   "Omitted fields are unchanged. Another phone number or e-mail address ends the customer's sessions; a provider may not change it. " + providerCustomers,
		Example: map[string]any{"firstName": "Mona", "note": "Uses a wheelchair."},
	}, s.updateCustomer)
}

func (s *Server) listCustomers(ctx context.Context, c api.Caller, in *api.Paging) (api.List[customerView], error) {
	page := in.Page()
	rows, err := s.api.Customers.List(ctx, c.CustomerScope(), page)
	return api.ListOf(rows, page.Limit, func(c *models.Customer) string { return c.ID }, customerOf), err
}

type byCustomer struct {
	ID string `path:"customerId" maxLength:"64"`
}

func (s *Server) getCustomer(ctx context.Context, c api.Caller, in *byCustomer) (api.Result[customerView], error) {
	return viewCustomer(s.api.Customers.Get(ctx, c.CustomerScope(), in.ID))
}

type mergeBody struct {
	CustomerID  string `json:"customerId" required:"true" minLength:"1" maxLength:"64" doc:"The record that stays."`
	DuplicateID string `json:"duplicateId" required:"true" minLength:"1" maxLength:"64" doc:"The record whose bookings it takes over."`
}

func (s *Server) mergeCustomers(ctx context.Context, c api.Caller, in *api.Body[mergeBody]) (api.Result[customerView], error) {
	var waiting []models.Booking
	merged, err := s.api.Access.Merge(ctx, c.CustomerScope(), in.Body.CustomerID, in.Body.DuplicateID,
		func(tx *store.Tx, keep, duplicate *models.Customer) (err error) {
			if waiting, err = booking.Reassign(tx, duplicate, keep); err != nil {
				return err
			}
			return files.Reassign(tx, c.OrganizationID, duplicate.ID, keep.ID)
		})
	s.api.Bookings.Republish(ctx, waiting)
	return viewCustomer(merged, err)
}

type customerChange struct {
	ID   string `path:"customerId" maxLength:"64"`
	Body CustomerBody
}

func (s *Server) updateCustomer(ctx context.Context, c api.Caller, in *customerChange) (api.Result[customerView], error) {
	return s.changeCustomer(ctx, c, in.ID, in.Body, "")
}
