package handlers

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"nowserving/booking/catalog"
	"nowserving/handlers/api"
	"nowserving/models"
)

// TypeDetails are fields of a type that are kept and given back as they came. One
// that is sent empty is emptied; one that is omitted or null is unchanged.
type TypeDetails struct {
	LeaveMinutesBefore *float64        `json:"leaveMinutesBefore,omitempty" minimum:"0" maximum:"1440" doc:"Minutes before a visit that are kept free of other visits and their buffers."`
	LeaveMinutesAfter  *float64        `json:"leaveMinutesAfter,omitempty" minimum:"0" maximum:"1440" doc:"The same after it."`
	OldPrice           *string         `json:"oldPrice,omitempty" maxLength:"20" example:"200.00"`
	PriceIncrease      *string         `json:"priceIncrease,omitempty" maxLength:"20" example:"10.00" doc:"A percentage."`
	PriceIncreaseDays  *float64        `json:"priceIncreaseDays,omitempty" minimum:"0" maximum:"3650"`
	DepositAmount      *string         `json:"depositAmount,omitempty" maxLength:"20" example:"50.00" doc:"At most the price."`
	DepositPercentage  *string         `json:"depositPercentage,omitempty" maxLength:"20" example:"25.00" doc:"0 to 100."`
	Schedule           models.Fields   `json:"schedule,omitzero"`
	TimeOptions        models.Fields   `json:"timeOptions,omitzero"`
	Photos             []models.Fields `json:"photos,omitzero" maxItems:"50"`
}

// maxDetails bounds the details of a type or a resource, in bytes.
const maxDetails = 64 << 10

// typeBody creates or changes a type. Omitted fields get their defaults or are
// unchanged.
type typeBody struct {
	NamedBody
	Prefix              *string   `json:"prefix" maxLength:"3" doc:"Of its tickets: one to three capital letters. The next free one by default."`
	Minutes             *int      `json:"minutes" minimum:"1" maximum:"1440" doc:"How long a visit takes."`
	Price               *string   `json:"price" maxLength:"20" example:"150.00"`
	PaymentMethods      *[]string `json:"paymentMethods" maxItems:"10" enum:"manual,creditCard,tabby,tamara"`
	Category            *string   `json:"category" maxLength:"200"`
	Color               *string   `json:"color" maxLength:"50"`
	On                  *bool     `json:"on" doc:"Whether customers may choose it; true by default."`
	AutoConfirm         *bool     `json:"autoConfirm"`
	BookFromWebsite     *bool     `json:"bookFromWebsite" doc:"true by default."`
	ComeNowAtPosition   *int      `json:"comeNowAtPosition" minimum:"0" maximum:"1000" doc:"A waiting patient's phone asks them to come, once, from this queuePosition on; 0, the default: it does not."`
	ComeNowAtMinutes    *int      `json:"comeNowAtMinutes" minimum:"0" maximum:"1440" doc:"The same, from this likely wait in minutes on (estimatedWait.likely)."`
	QueueTimeoutMinutes *int      `json:"queueTimeoutMinutes" doc:"Minutes until a queued booking that has no assignmentTimeout expires: 5 to 180, what is beyond is clamped; 180 by default."`
	TypeDetails
}

// apply changes a type. A text without translations is in lang.
func (b *typeBody) apply(t *models.BookingType, lang string) error {
	b.rename(&t.Name, &t.NameTranslations, &t.Description, &t.DescriptionTranslations, lang)
	set(&t.Prefix, b.Prefix)
	set(&t.Minutes, b.Minutes)
	set(&t.Price, b.Price)
	set(&t.PaymentMethods, b.PaymentMethods)
	set(&t.Category, b.Category)
	set(&t.Color, b.Color)
	set(&t.On, b.On)
	set(&t.AutoConfirm, b.AutoConfirm)
	set(&t.BookFromWebsite, b.BookFromWebsite)
	set(&t.ComeNowAtPosition, b.ComeNowAtPosition)
	set(&t.ComeNowAtMinutes, b.ComeNowAtMinutes)
	if b.QueueTimeoutMinutes != nil {
		t.QueueTimeoutMinutes = models.ClampTimeout(float64(*b.QueueTimeoutMinutes))
	}
	if err := b.checkDecimals(); err != nil {
		return err
	}
	var err error
	t.Details, err = merge(t.Details, b.TypeDetails)
	return err
}

// checkDecimals checks prices and percentages. Prices get two digits, percentages
// are kept as they came.
func (b *typeBody) checkDecimals() error {
	for _, d := range []struct {
		field string
		value *string
		price bool
	}{
		{"oldPrice", b.OldPrice, true}, {"priceIncrease", b.PriceIncrease, false},
		{"depositAmount", b.DepositAmount, true}, {"depositPercentage", b.DepositPercentage, false},
	} {
		normal, ok := catalog.Decimal(models.Text(d.value))
		if !ok {
			return models.Invalid(d.field, "It is a decimal with two digits, such as 25.00.")
		}
		if d.price && d.value != nil {
			*d.value = normal
		}
	}
	if percentage, err := strconv.ParseFloat(models.Text(b.DepositPercentage), 64); err == nil && percentage > 100 {
		return models.Invalid("depositPercentage", "A percentage is 0 to 100.")
	}
	return nil
}

// merge puts the fields that are set in given over those known.
func merge(known models.Fields, given any) (models.Fields, error) {
	body, err := json.Marshal(given)
	if err != nil {
		return nil, err
	}
	merged := models.Fields{}
	for name, value := range known {
		merged[name] = value
	}
	if err := json.Unmarshal(body, &merged); err != nil {
		return nil, err
	}
	if whole, err := json.Marshal(merged); err != nil {
		return nil, err
	} else if len(whole) > maxDetails {
		return nil, models.Invalid("photos", "Photos, schedules and other details take at most %d bytes.", maxDetails)
	}
	return merged, nil
}

// split gives the details their fields back.
func split(details models.Fields, into any) error {
	body, err := json.Marshal(details)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// OfferView is a type as customers see it.
type OfferView struct {
	NamedView
	Minutes         int      `json:"minutes"`
	Price           string   `json:"price"`
	PaymentMethods  []string `json:"paymentMethods" nullable:"false"`
	Category        string   `json:"category"`
	Color           string   `json:"color"`
	BookFromWebsite bool     `json:"bookFromWebsite"`
	PendingCount    int      `json:"pendingCount" doc:"How many wait for it now."`
	TypeDetails
}

// typeView is a type as staff see it.
type typeView struct {
	OfferView
	Prefix              string        `json:"prefix"`
	On                  bool          `json:"on"`
	AutoConfirm         bool          `json:"autoConfirm"`
	ComeNowAtPosition   int           `json:"comeNowAtPosition"`
	ComeNowAtMinutes    int           `json:"comeNowAtMinutes"`
	QueueTimeoutMinutes int           `json:"queueTimeoutMinutes"`
	CreatedAt           models.Moment `json:"createdAt"`
}

func viewOffer(t *models.BookingType, lang string, pending int) (OfferView, error) {
	v := OfferView{
		NamedView: NamedView{t.ID, t.Name, t.NameTranslations, t.Description, t.DescriptionTranslations}.in(lang),
		Minutes:   t.Minutes, Price: t.Price, PaymentMethods: t.PaymentMethods, Category: t.Category, Color: t.Color,
		BookFromWebsite: t.BookFromWebsite, PendingCount: pending,
	}
	if v.PaymentMethods == nil {
		v.PaymentMethods = []string{}
	}
	return v, split(t.Details, &v.TypeDetails)
}

func viewType(t *models.BookingType, lang string, pending int) (typeView, error) {
	offer, err := viewOffer(t, lang, pending)
	return typeView{offer, t.Prefix, t.On, t.AutoConfirm, t.ComeNowAtPosition, t.ComeNowAtMinutes, t.QueueTimeoutMinutes, models.At(t.CreatedAt)}, err
}

func (s *Server) showType(ctx context.Context, c api.Caller, t *models.BookingType) (api.Result[typeView], error) {
	counts, err := s.api.Bookings.PendingCounts(ctx, c.OrganizationID, []string{t.ID})
	if err != nil {
		return api.Result[typeView]{}, err
	}
	view, err := viewType(t, c.Lang, counts[t.ID])
	return api.Result[typeView]{Result: view}, err
}

type byType struct {
	ID string `path:"id" maxLength:"64"`
}

func (s *Server) typeRoutes() {
	example := map[string]any{
		"name": "General consultation", "name_translations": map[string]any{"en": "General consultation", "ar": "استشارة عامة"},
		"minutes": 15, "price": "0.00", "prefix": "A", "on": true,
	}
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/types", ID: "listTypes", Tag: "Types", Roles: api.Staff, Summary: "List booking types",
	}, s.listTypes)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/types", ID: "createType", Tag: "Types", Roles: api.Managers,
		Summary: "Create a booking type", Example: example,
	}, s.createType)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/types/{id}", ID: "getType", Tag: "Types", Roles: api.Staff, Summary: "Get a booking type",
	}, s.getType)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/types/{id}", ID: "updateType", Tag: "Types", Roles: api.Managers,
		Summary: "Change a booking type", About: "Omitted fields are unchanged. " + renaming, Example: map[string]any{"minutes": 20, "on": true},
	}, s.updateType)
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/management/types/{id}", ID: "deleteType", Tag: "Types", Roles: api.Managers,
		Summary: "Delete a booking type", About: "Not while anybody waits for it.",
	}, s.deleteType)
}

func (s *Server) listTypes(ctx context.Context, c api.Caller, in *api.Paging) (api.List[typeView], error) {
	page := in.Page()
	rows, err := s.api.Catalog.Types(ctx, c.OrganizationID, false, page)
	if err != nil {
		return api.List[typeView]{}, err
	}
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	counts, err := s.api.Bookings.PendingCounts(ctx, c.OrganizationID, ids)
	if err != nil {
		return api.List[typeView]{}, err
	}
	return api.TryListOf(rows, page.Limit, func(t *models.BookingType) string { return t.ID }, func(t *models.BookingType) (typeView, error) {
		return viewType(t, c.Lang, counts[t.ID])
	})
}

func (s *Server) createType(ctx context.Context, c api.Caller, in *api.Body[typeBody]) (api.Result[typeView], error) {
	t := &models.BookingType{OrganizationID: c.OrganizationID, On: true, BookFromWebsite: true}
	if err := in.Body.apply(t, c.Lang); err != nil {
		return api.Result[typeView]{}, err
	}
	if err := s.api.Catalog.CreateType(ctx, t); err != nil {
		return api.Result[typeView]{}, err
	}
	s.api.CatalogueChanged(ctx, c.OrganizationID)
	view, err := viewType(t, c.Lang, 0) // no booking can wait for it yet
	return api.Result[typeView]{Result: view}, err
}

func (s *Server) getType(ctx context.Context, c api.Caller, in *byType) (api.Result[typeView], error) {
	t, err := s.api.Catalog.Type(ctx, c.OrganizationID, in.ID)
	if err != nil {
		return api.Result[typeView]{}, err
	}
	return s.showType(ctx, c, t)
}

type typeChange struct {
	ID   string `path:"id" maxLength:"64"`
	Body typeBody
}

func (s *Server) updateType(ctx context.Context, c api.Caller, in *typeChange) (api.Result[typeView], error) {
	t, err := s.api.Catalog.Type(ctx, c.OrganizationID, in.ID)
	if err != nil {
		return api.Result[typeView]{}, err
	}
	if err := in.Body.apply(t, c.Lang); err != nil {
		return api.Result[typeView]{}, err
	}
	// Counted before the change, so that nothing can fail after it.
	counts, err := s.api.Bookings.PendingCounts(ctx, c.OrganizationID, []string{t.ID})
	if err != nil {
		return api.Result[typeView]{}, err
	}
	if err := s.api.Catalog.UpdateType(ctx, t); err != nil {
		return api.Result[typeView]{}, err
	}
	s.api.Bookings.ForgetType(t.ID)
	s.api.CatalogueChanged(ctx, c.OrganizationID)
	view, err := viewType(t, c.Lang, counts[t.ID])
	return api.Result[typeView]{Result: view}, err
}

type typeDeletion struct {
	ID     string `path:"id" maxLength:"64"`
	Cancel bool   `query:"cancel" doc:"Cancel its future appointments, and tell their customers. Without it they are a reason to refuse (409)."`
}

func (s *Server) deleteType(ctx context.Context, c api.Caller, in *typeDeletion) (api.Message, error) {
	if err := s.api.Bookings.DeleteType(ctx, c.Scope(), in.ID, in.Cancel); err != nil {
		return api.Message{}, err
	}
	s.api.CatalogueChanged(ctx, c.OrganizationID)
	return api.Message{Message: "The booking type is deleted."}, nil
}
