package handlers

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	customfields "nowserving/booking/fields"
	"nowserving/handlers/api"
	"nowserving/models"
)

// fieldBody defines a custom field.
type fieldBody struct {
	ID               string            `json:"id" required:"true" minLength:"1" maxLength:"64"`
	Name             string            `json:"name" required:"true" minLength:"1" maxLength:"200"`
	NameTranslations *translationBody  `json:"name_translations"`
	Description      string            `json:"description" maxLength:"5000"`
	Type             models.FieldType  `json:"type" required:"true" enum:"text,paragraph,number,options,location,photo,photos,file,files,paragraph-readonly"`
	TextType         string            `json:"textType" enum:"phone,email" doc:"Of a text field."`
	Optional         bool              `json:"optional" doc:"Whether the field may be left out."`
	Enabled          *bool             `json:"enabled" default:"true"`
	Visibility       models.Visibility `json:"visibility" enum:"public,providerOnly" doc:"public: customers see the field. providerOnly: only staff do. Default providerOnly; of phoneNumber, firstName, lastName and email public."`
	Options          []fieldOptionBody `json:"options" maxItems:"200" doc:"Of an options field."`
	Types            []string          `json:"types" maxItems:"200" doc:"The booking types the field is for. Empty: all."`
	Minutes          int               `json:"minutes" minimum:"0" maximum:"1440" doc:"Of a number field: how many minutes each unit adds to a visit."`
	Price            string            `json:"price" maxLength:"20" example:"25.00" doc:"Of a number field: how much each unit adds to the price."`
	Info             models.Fields     `json:"info" doc:"filterResources: the field filters resources by their meta. multiple: an options field takes several values. Other members are kept."`
	Conditions       models.Fields     `json:"conditions" doc:"By the ids of other fields: the value, or the values, that show this field. All have to hold."`

	PhoneAuthMethods []string `json:"phoneAuthMethods" maxItems:"2" enum:"sms,whatsapp"`
	SMSSender        string   `json:"smsSender" enum:"app,custom"`
	DefaultCountry   string   `json:"defaultCountry" maxLength:"2" example:"SA" doc:"Whose phone numbers need no country code. Default: the organization's."`
	AllowedCountries string   `json:"allowedCountries" enum:"all,specific,forbidden" doc:"Of which countries a phone number may be: any, those of allowedCountriesList, or any but those of forbiddenCountriesList. Default all."`
	AllowedList      []string `json:"allowedCountriesList" maxItems:"300"`
	ForbiddenList    []string `json:"forbiddenCountriesList" maxItems:"300"`
}

// fieldOptionBody is one choice of an options field.
type fieldOptionBody struct {
	Value            string           `json:"value" required:"true" minLength:"1" maxLength:"64"`
	Name             *string          `json:"name" maxLength:"200" doc:"Default: the value."`
	NameTranslations *translationBody `json:"name_translations"`
	Minutes          int              `json:"minutes" minimum:"0" maximum:"1440" doc:"How many minutes it adds to a visit."`
	Price            string           `json:"price" maxLength:"20" example:"25.00" doc:"How much it adds to the price."`
}

// define returns the field that the body defines. A name without translations is in lang
// and keeps the translations that the field had before.
func (b fieldBody) define(before *models.FormField, lang string) models.FormField {
	f := models.FormField{
		ID: b.ID, Name: before.Name, NameTranslations: before.NameTranslations, Description: b.Description, Type: b.Type, TextType: b.TextType,
		Optional: b.Optional, Enabled: true, Visibility: b.Visibility, Types: b.Types, Minutes: b.Minutes, Price: b.Price, Info: b.Info, Conditions: b.Conditions,
		PhoneAuthMethods: b.PhoneAuthMethods, SMSSender: b.SMSSender, DefaultCountry: b.DefaultCountry,
		AllowedCountries: b.AllowedCountries, AllowedList: b.AllowedList, ForbiddenList: b.ForbiddenList,
	}
	setText(&f.Name, &f.NameTranslations, &b.Name, b.NameTranslations, lang)
	set(&f.Enabled, b.Enabled)
	for _, o := range b.Options {
		option := models.FieldOption{Value: o.Value, Minutes: o.Minutes, Price: o.Price}
		if i := slices.IndexFunc(before.Options, func(known models.FieldOption) bool { return known.Value == o.Value }); i >= 0 {
			option.Name, option.NameTranslations = before.Options[i].Name, before.Options[i].NameTranslations
		}
		setText(&option.Name, &option.NameTranslations, o.Name, o.NameTranslations, lang)
		option.Name = cmp.Or(option.Name, option.NameTranslations.En, option.NameTranslations.Ar, o.Value)
		f.Options = append(f.Options, option)
	}
	return f
}

// viewFields returns fields with their names in lang.
func viewFields(list []models.FormField, lang string) api.Result[[]models.FormField] {
	views := make([]models.FormField, len(list))
	for i, f := range list {
		f.Name = f.NameTranslations.In(lang, f.Name)
		f.Options = slices.Clone(f.Options)
		for k := range f.Options {
			o := &f.Options[k]
			o.Name = o.NameTranslations.In(lang, o.Name)
		}
		if f.Types == nil {
			f.Types = []string{}
		}
		views[i] = f
	}
	return api.Result[[]models.FormField]{Result: views}
}

func (s *Server) customFieldRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customFields/resourceFilters", ID: "listResourceFilterFields", Tag: "Custom fields", Tenant: api.TenantFromHeader,
		Summary: "List the fields that filter resources", About: "Their values go into resourceFiltersCustomFields.",
	}, s.listResourceFilterFields)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customFields/timeAdjusters", ID: "listTimeAdjusterFields", Tag: "Custom fields", Tenant: api.TenantFromHeader,
		Summary: "List the fields that change the length and the price", About: "Their values go into timeAdjustersCustomFields. Ask for them before the time: they change which times are free.",
	}, s.listTimeAdjusterFields)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customFields/bookingInfo", ID: "listBookingInfoFields", Tag: "Custom fields", Tenant: api.TenantFromHeader,
		Summary: "List the fields with information about a booking", About: "Their values go into bookingInfoCustomFields.",
	}, s.listBookingInfoFields)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/customFields/customer", ID: "listCustomerFields", Tag: "Custom fields", Tenant: api.TenantFromHeader,
		Summary: "List the fields with information about a customer", About: "The core fields phoneNumber, firstName, lastName and email are a customer's own members. The values of the others go into data.",
	}, s.listCustomerFields)
	const core = "phoneNumber, firstName, lastName and email are always there."
	const replaced = "The list replaces the fields as a whole. A name without translations is in the language of the header lang. " +
		"Values that were given for a field before stay, and are not checked again. "
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/customFields/customer", ID: "getCustomerFields", Tag: "Custom fields", Roles: api.Staff,
		Summary: "Get the custom fields of customers", About: core,
	}, s.getCustomerFields)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/customFields/customer", ID: "updateCustomerFields", Tag: "Custom fields", Roles: api.Managers,
		Summary: "Replace the custom fields of customers",
		About: replaced + core + " One that the list omits stays as it was. Phone number and e-mail can't both be disabled, nor both be optional; " +
			"while one is disabled, the other is required. Until there is another field, data takes any values.",
		Example: []any{
			map[string]any{"id": "phoneNumber", "name": "Phone number", "type": "text", "textType": "phone", "visibility": "public", "allowedCountries": "specific", "allowedCountriesList": []string{"SA"}},
			map[string]any{"id": "allergies", "name": "Allergies", "type": "paragraph", "optional": true, "visibility": "public"},
		},
	}, s.updateCustomerFields)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/customFields/booking", ID: "getBookingFields", Tag: "Custom fields", Roles: api.Staff,
		Summary: "Get the custom fields of bookings",
	}, s.getBookingFields)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/customFields/booking", ID: "updateBookingFields", Tag: "Custom fields", Roles: api.Managers,
		Summary: "Replace the custom fields of bookings",
		About: replaced + "A field with info.filterResources filters resources; else a number or options with minutes or a price change the length and the price; " +
			"any other is information. Until there is a field, bookings take any values.",
		Example: []any{
			map[string]any{"id": "specialty", "name": "Specialty", "type": "options", "visibility": "public", "info": map[string]any{"filterResources": true},
				"options": []any{map[string]any{"value": "pediatrics", "name": "Pediatrics"}}},
			map[string]any{"id": "guests", "name": "Guests", "type": "number", "minutes": 15, "price": "10.00", "visibility": "public", "optional": true},
		},
	}, s.updateBookingFields)
}

type fieldsQuery struct {
	Type string `query:"type" maxLength:"64" doc:"A booking type's id. Default: fields of all types."`
}

type fieldsOfType struct {
	Type string `query:"type" required:"true" minLength:"1" maxLength:"64" doc:"The booking type's id."`
}

// offeredFields answers the fields of one use that customers see.
func (s *Server) offeredFields(ctx context.Context, c api.Caller, use customfields.Use, typeID string) (api.Result[[]models.FormField], error) {
	o, err := s.fieldsFor(ctx, c, typeID)
	if err != nil {
		return api.Result[[]models.FormField]{}, err
	}
	return viewFields(customfields.OfferedFor(use, o.BookingFields.Fields, typeID), c.Lang), nil
}

// fieldsFor returns the organization, which has the booking type unless typeID is empty.
func (s *Server) fieldsFor(ctx context.Context, c api.Caller, typeID string) (*api.Organization, error) {
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err == nil && typeID != "" && o.TypeByID[typeID] == nil {
		_, err = s.api.Catalog.Type(ctx, c.OrganizationID, typeID) // another node may have just made it
	}
	return o, err
}

func (s *Server) listResourceFilterFields(ctx context.Context, c api.Caller, in *fieldsQuery) (api.Result[[]models.FormField], error) {
	return s.offeredFields(ctx, c, customfields.Filter, in.Type)
}

func (s *Server) listTimeAdjusterFields(ctx context.Context, c api.Caller, in *fieldsOfType) (api.Result[[]models.FormField], error) {
	return s.offeredFields(ctx, c, customfields.Adjuster, in.Type)
}

func (s *Server) listBookingInfoFields(ctx context.Context, c api.Caller, in *fieldsOfType) (api.Result[[]models.FormField], error) {
	return s.offeredFields(ctx, c, customfields.Info, in.Type)
}

func (s *Server) listCustomerFields(ctx context.Context, c api.Caller, in *fieldsQuery) (api.Result[[]models.FormField], error) {
	o, err := s.fieldsFor(ctx, c, in.Type)
	if err != nil {
		return api.Result[[]models.FormField]{}, err
	}
	return viewFields(customfields.Offered(o.CustomerFields.Fields, in.Type), c.Lang), nil
}

// fieldsBody replaces custom fields.
type fieldsBody struct {
	Body []fieldBody `maxItems:"200"`
}

func (s *Server) getFields(ctx context.Context, c api.Caller, kind models.FieldKind) (api.Result[[]models.FormField], error) {
	known, err := s.api.Catalog.CustomFields(ctx, c.OrganizationID, kind)
	return viewFields(known.Fields, c.Lang), err
}

func (s *Server) updateFields(ctx context.Context, c api.Caller, kind models.FieldKind, list []fieldBody) (api.Result[[]models.FormField], error) {
	changed, err := s.api.Catalog.ChangeCustomFields(ctx, c.OrganizationID, kind, func(before []models.FormField) []models.FormField {
		defined := make([]models.FormField, len(list))
		for i, b := range list {
			known := &models.FormField{}
			if at := slices.IndexFunc(before, func(f models.FormField) bool { return f.ID == b.ID }); at >= 0 {
				known = &before[at]
			}
			defined[i] = b.define(known, c.Lang)
			customfields.Complete(kind, &defined[i])
		}
		return defined
	})
	if err != nil {
		return api.Result[[]models.FormField]{}, err
	}
	s.api.CatalogueChanged(ctx, c.OrganizationID)
	return viewFields(changed.Fields, c.Lang), nil
}

func (s *Server) getCustomerFields(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[[]models.FormField], error) {
	return s.getFields(ctx, c, models.CustomerFields)
}

func (s *Server) updateCustomerFields(ctx context.Context, c api.Caller, in *fieldsBody) (api.Result[[]models.FormField], error) {
	return s.updateFields(ctx, c, models.CustomerFields, in.Body)
}

func (s *Server) getBookingFields(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[[]models.FormField], error) {
	return s.getFields(ctx, c, models.BookingFields)
}

func (s *Server) updateBookingFields(ctx context.Context, c api.Caller, in *fieldsBody) (api.Result[[]models.FormField], error) {
	return s.updateFields(ctx, c, models.BookingFields, in.Body)
}
