package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"nowserving/handlers/web"
	"nowserving/models"
)

// tags group the API reference, in this order.
var tags = []*huma.Tag{
	{Name: "Sign-in", Description: "One-time codes and tokens. An access token lives 15 minutes; the refresh token gets the next one."},
	{Name: "Availability", Description: "What an organization offers and how many wait for it. Public: X-APP-ID is all it takes."},
	{Name: "Custom fields", Description: "What an organization asks of its customers and for a booking. A booking field filters resources, changes the length and the price, or is information."},
	{Name: "Customer", Description: "What a patient does: join a queue, look at their bookings, leave."},
	{Name: "Devices", Description: "Phones and browsers that notifications go to, a patient's or a member's."},
	{Name: "Queue", Description: "What a provider does: call the next patient, look at the queue, pause it."},
	{Name: "Bookings", Description: "A visit from the desk's side, from joining to its end."},
	{Name: "Displays", Description: "Waiting-room screens. They show ticket numbers, never names."},
	{Name: "Resources", Description: "Who or what serves: a doctor, a room, a desk."},
	{Name: "Calendar", Description: "When resources can be booked: the hours of an organization and of its resources, holidays and vacations."},
	{Name: "Website", Description: "The booking page of an organization: what it says, how it looks and how it books. A draft is prepared and then published."},
	{Name: "Types", Description: "The services a customer can ask for."},
	{Name: "Customers", Description: "The patients of an organization."},
	{Name: "Messages", Description: "E-mail, SMS and WhatsApp: how they are worded, which reminders go out, and what became of each."},
	{Name: "Members", Description: "Those who work for an organization: owners, admins, providers, receptionists and screens."},
	{Name: "Organizations", Description: "Tenants."},
	{Name: "API keys", Description: "Keys that act for one organization, as far as their scopes reach: read, write or admin."},
	{Name: "Account API keys", Description: "Keys that act for every organization, and make and delete them."},
	{Name: "Webhooks", Description: "Other systems that are told what happens, signed, until they have taken it."},
	{Name: "Audit", Description: "Who did what, when, from where and why."},
}

const about = "A clinic's live queue. Patients join and watch their place move; doctors take the next patient; screens announce the ticket. " +
	"Answers come as {\"result\": …}, lists with \"pagination\"; failures as application/problem+json with a stable code. " +
	"Credentials travel in Authorization: Bearer or X-API-KEY; X-APP-ID names the organization where the credential does not; lang (en, ar) chooses the language."

// document configures the framework: one JSON format, no pages of its own, and no
// links to schemas in answers.
func (a *API) document() huma.Config {
	config := huma.DefaultConfig("Now Serving", a.Version)
	config.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[models.Moment](), reflect.TypeFor[time.Time]())
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil
	strictNames()
	config.FieldsOptionalByDefault = true
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	config.Formats = map[string]huma.Format{"application/json": format, "json": format}
	config.Transformers = []huma.Transformer{a.translate}
	config.Info.Description = about
	config.Info.License = &huma.License{Name: "MIT", URL: "https://opensource.org/license/mit"}
	config.Info.Contact = &huma.Contact{Name: "Now Serving contributors", URL: a.PublicURL}
	config.Tags = tags
	if a.PublicURL != "" {
		config.Servers = []*huma.Server{{URL: a.PublicURL}}
	}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearerAuth": {Type: "http", Scheme: "bearer", Description: "An access token, or an API key."},
		"apiKey":     {Type: "apiKey", In: "header", Name: "X-API-KEY", Description: "An API key."},
		"session":    {Type: "apiKey", In: "header", Name: SessionHeader, Description: "member or customer: the session that our own pages keep in cookies."},
	}
	config.Components.Headers = limitHeaders
	config.Components.Parameters = maps.Clone(sharedParameters)
	codes := make([]map[string]any, len(models.Failures))
	for i, f := range models.Failures {
		codes[i] = map[string]any{"code": f.Code, "status": statuses[f.Code], "meaning": f.Meaning, "remedy": f.Remedy}
	}
	config.Extensions = map[string]any{"x-error-codes": codes}
	return config
}

// unmarshal reads JSON and refuses text that no database stores. A number that is too
// large for its field is reported as a wrong type of the field.
func unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	for range maxWhole {
		rewritten, ok := wholeNumber(data, err)
		if !ok {
			break
		}
		data = rewritten
		err = json.Unmarshal(data, v)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return errors.New("a number is too large")
		}
		// The names of embedded structs, which begin with a capital, are ours.
		names := slices.DeleteFunc(strings.Split(wrong.Field, "."), func(name string) bool { return name[:1] != strings.ToLower(name[:1]) })
		what := wrong.Type.Kind().String()
		if wrong.Type.Kind() == reflect.Int {
			what = "integer"
		}
		return fmt.Errorf("property %s : expected %s", strings.Join(names, "."), what)
	}
	if parsed, ok := v.(*any); ok && err == nil && !storable(*parsed) {
		return errors.New("a text holds the character U+0000")
	}
	return err
}

// maxWhole bounds how many numbers of a body wholeNumber rewrites.
const maxWhole = 50

// wholeNumber rewrites the number that could not be read into an integer if its
// fraction is zero: in JSON Schema 10.0 and 1e1 are integers, in Go they are not.
// Numbers elsewhere stay as they were written.
func wholeNumber(data []byte, err error) (rewritten []byte, ok bool) {
	wrong, isType := errors.AsType[*json.UnmarshalTypeError](err)
	if !isType {
		return nil, false
	}
	written, isNumber := strings.CutPrefix(wrong.Value, "number ")
	end := int(wrong.Offset)
	begin := end - len(written)
	if !isNumber || begin < 0 || end > len(data) || string(data[begin:end]) != written || !strings.ContainsAny(written, ".eE") {
		return nil, false
	}
	number, err := strconv.ParseFloat(written, 64)
	if err != nil || number != math.Trunc(number) || math.Abs(number) > 1<<53 {
		return nil, false
	}
	return slices.Concat(data[:begin], strconv.AppendInt(nil, int64(number), 10), data[end:]), true
}

func storable(v any) bool {
	switch v := v.(type) {
	case string:
		return !strings.Contains(v, "\x00")
	case []any:
		for _, item := range v {
			if !storable(item) {
				return false
			}
		}
	case map[string]any:
		for key, item := range v {
			if !storable(key) || !storable(item) {
				return false
			}
		}
	}
	return true
}

// refusal returns the name of the shared response of a status that is a failure.
func (a *API) refusal(status int) string {
	api := a.huma.OpenAPI()
	name := strings.ReplaceAll(http.StatusText(status), " ", "")
	if api.Components.Responses == nil {
		api.Components.Responses = map[string]*huma.Response{}
	}
	if api.Components.Responses[name] == nil {
		schema := api.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
		api.Components.Responses[name] = &huma.Response{
			Description: http.StatusText(status), Headers: headersOf(status), Content: map[string]*huma.MediaType{problemType: {Schema: schema}},
		}
	}
	return name
}

// ParameterPrefix begins the references to shared parameters.
const ParameterPrefix = "#/components/parameters/"

// sharedParameters are those that many operations have, by the name of their
// component. Those of a list come from the type paging.
var sharedParameters = map[string]*huma.Param{
	"X-APP-ID": {
		Name: "X-APP-ID", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "The organization's id or short name. An account key needs it; other credentials may name their own only.",
	},
	"X-APP-ID-required": {
		Name: "X-APP-ID", In: "header", Required: true, Schema: &huma.Schema{Type: huma.TypeString}, Description: "The organization's id or short name.",
	},
	idempotencyKey: {
		Name: idempotencyKey, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "Makes it safe to repeat the request: with the same key, of at most 255 characters, it is carried out once in 24 hours, " +
			"and answered as the first time, with Idempotency-Replayed: true.",
	},
	"lang": {
		Name: "lang", In: "header", Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{"en", "ar"}},
		Description: "The language of names and display texts.",
	},
}

// documented describes an operation for the framework and the document.
func (a *API) documented(op Operation) huma.Operation {
	d := huma.Operation{
		Method: op.Method, Path: op.Path, OperationID: op.ID, Tags: []string{op.Tag}, Summary: op.Summary, Description: op.description(),
		// The middleware bounds the body and the time to send it.
		MaxBodyBytes: -1, BodyReadTimeout: -1,
		Responses:  map[string]*huma.Response{},
		Extensions: map[string]any{"x-who": op.Roles.names()},
		Security:   []map[string][]string{},
	}
	// Where no credential is required, a code, a token or a page's session may be refused.
	statuses := []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity,
		http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
	}
	if op.Method != http.MethodGet {
		statuses = append(statuses, http.StatusConflict, http.StatusRequestEntityTooLarge)
	}
	for _, status := range statuses {
		d.Responses[strconv.Itoa(status)] = &huma.Response{Ref: "#/components/responses/" + a.refusal(status)}
	}
	if op.Roles != Public {
		if op.Roles&AnyKey != 0 {
			d.Extensions["x-scope"] = op.scopeNeeded()
		}
		d.Security = []map[string][]string{{"bearerAuth": {}}, {"apiKey": {}}}
		if op.Roles&People != 0 {
			d.Security = append(d.Security, map[string][]string{"session": {}})
		}
		if op.Guests {
			d.Security = append(d.Security, map[string][]string{}) // or none
		}
	}
	parameter := func(name string) { d.Parameters = append(d.Parameters, &huma.Param{Ref: ParameterPrefix + name}) }
	switch op.Tenant {
	case NoTenant:
	case TenantFromHeader:
		parameter("X-APP-ID-required")
	default:
		parameter("X-APP-ID")
	}
	if op.repeatable() {
		parameter(idempotencyKey)
	}
	parameter("lang")
	return d
}

// finish adds to the document what the framework has no option for.
func (a *API) finish(op Operation) {
	api := a.huma.OpenAPI()
	operations := OperationsOf(api.Paths[op.Path])
	d := operations[slices.IndexFunc(operations, func(d *huma.Operation) bool { return d.Method == op.Method })]
	for status, answer := range d.Responses {
		if answer.Ref == "" {
			code, _ := strconv.Atoi(status) // the framework made it from a number
			answer.Headers = headersOf(code)
		}
	}
	if d.RequestBody != nil && op.Example != nil {
		d.RequestBody.Content["application/json"].Example = op.Example
	}
	for i, p := range d.Parameters {
		if !isPaging(p) {
			continue
		}
		api.Components.Parameters[p.Name] = p
		d.Parameters[i] = &huma.Param{Ref: ParameterPrefix + p.Name}
	}
}

// isPaging reports whether a parameter comes from the type paging: some lists
// have other limits of their own.
func isPaging(p *huma.Param) bool {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Paging]()) {
		if p.In == "query" && p.Name == field.Tag.Get("query") && p.Description == field.Tag.Get("doc") {
			return true
		}
	}
	return false
}

// ServeOpenAPI serves the OpenAPI document of the operations registered so far, in
// OpenAPI 3.1 and 3.0. complete adds to it first. It is written when it is first
// asked for.
func (a *API) ServeOpenAPI(complete func(*huma.OpenAPI)) {
	api := a.huma.OpenAPI()
	// The framework registers its own error; every answer is a Problem.
	schemas := api.Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	complete(api)
	completeSchemas(api)
	shareAnswers(api)
	a.OpenAPI = sync.OnceValues(func() ([]byte, error) { return json.Marshal(api) })
	a.ServeDocument("/openapi.json", a.OpenAPI)
	a.ServeDocument("/openapi-3.0.json", func() ([]byte, error) { return olderOpenAPI(*api) })
}

// Info is what the documents say of the API as a whole.
func (a *API) Info() *huma.Info { return a.huma.OpenAPI().Info }

// ServeDocument serves a JSON document without authentication. It is written when it is
// first asked for.
func (a *API) ServeDocument(path string, document func() ([]byte, error)) {
	file := sync.OnceValues(func() (web.File, error) {
		written, err := document()
		if err != nil {
			return web.File{}, err
		}
		return web.NewFile("application/json", written)
	})
	a.Router.GET(path, a.CountPage, func(c *gin.Context) {
		f, err := file()
		if err != nil {
			a.WriteError(c, fmt.Errorf("write the document %s: %w", path, err))
			return
		}
		c.Header("Cache-Control", "no-cache")
		f.Send(c)
	})
}
