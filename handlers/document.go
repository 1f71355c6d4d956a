package handlers

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"nowserving/models"
)

// The tags of the API reference, in its order.
var tags = []*huma.Tag{
	{Name: "Sign-in", Description: "One-time codes and tokens. An access token lives 15 minutes; the refresh token gets the next one."},
	{Name: "Availability", Description: "What an organization offers and how many wait for it. Public: X-APP-ID is all it takes."},
	{Name: "Customer", Description: "What a patient does: join a queue, look at their bookings, leave."},
	{Name: "Devices", Description: "Phones and browsers that notifications go to, a patient's or a member's."},
	{Name: "Queue", Description: "What a provider does: call the next patient, look at the queue, pause it."},
	{Name: "Bookings", Description: "A visit from the desk's side, from joining to its end."},
	{Name: "Displays", Description: "Waiting-room screens. They show ticket numbers, never names."},
	{Name: "Resources", Description: "Who or what serves: a doctor, a room, a desk."},
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

// document configures the framework: one JSON format, no pages of its own and
// no links to schemas in answers.
func (s *Server) document() huma.Config {
	config := huma.DefaultConfig("Now Serving", "1.0")
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil
	config.AllowAdditionalPropertiesByDefault = true
	config.FieldsOptionalByDefault = true
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	config.Formats = map[string]huma.Format{"application/json": format, "json": format}
	config.Transformers = []huma.Transformer{s.translate}
	config.Info.Description = about
	config.Tags = tags
	if s.o.PublicURL != "" {
		config.Servers = []*huma.Server{{URL: s.o.PublicURL}}
	}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearerAuth": {Type: "http", Scheme: "bearer", Description: "An access token, or an API key."},
		"apiKey":     {Type: "apiKey", In: "header", Name: "X-API-KEY", Description: "An API key."},
		"session":    {Type: "apiKey", In: "header", Name: sessionHeader, Description: "member or customer: the session that our own pages keep in cookies."},
	}
	codes := make([]map[string]any, len(models.Failures))
	for i, f := range models.Failures {
		codes[i] = map[string]any{"code": f.Code, "status": f.Status, "meaning": f.Meaning, "remedy": f.Remedy}
	}
	config.Extensions = map[string]any{"x-error-codes": codes}
	return config
}

// unmarshal reads JSON and refuses texts no database would store. A number too
// large for its field, or broken, is told as a wrong type of that field.
func unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
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

// documented describes an operation for the framework and the document.
func (s *Server) documented(op operation) huma.Operation {
	d := huma.Operation{
		Method: op.method, Path: op.path, OperationID: op.id, Tags: []string{op.tag}, Summary: op.summary, Description: op.description(),
		// The middleware bounds the body and the time to send it.
		MaxBodyBytes: -1, BodyReadTimeout: -1,
		Responses:  map[string]*huma.Response{},
		Extensions: map[string]any{"x-who": op.who.names()},
		Security:   []map[string][]string{},
	}
	// Where nobody has to say who they are, a code, a token or a page's session may be refused.
	statuses := map[int]string{
		http.StatusBadRequest: "", http.StatusUnauthorized: "", http.StatusForbidden: "", http.StatusInternalServerError: "", http.StatusServiceUnavailable: "",
	}
	if op.who != nobody {
		if op.who&anyKey != 0 {
			d.Extensions["x-scope"] = op.scopeNeeded()
		}
		d.Security = []map[string][]string{{"bearerAuth": {}}, {"apiKey": {}}}
		if op.who&people != 0 {
			d.Security = append(d.Security, map[string][]string{"session": {}})
		}
	}
	statuses[http.StatusTooManyRequests], statuses[http.StatusUnprocessableEntity], statuses[http.StatusNotFound] = "", "", ""
	if op.method != http.MethodGet {
		statuses[http.StatusConflict], statuses[http.StatusRequestEntityTooLarge] = "", ""
	}
	schema := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	for status := range statuses {
		d.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status), Content: map[string]*huma.MediaType{problemType: {Schema: schema}},
		}
	}
	if op.tenancy != untold {
		d.Parameters = append(d.Parameters, &huma.Param{
			Name: "X-APP-ID", In: "header", Required: op.tenancy == fromHeader, Schema: &huma.Schema{Type: huma.TypeString},
			Description: "The organization's id. An account key needs it; other credentials may name their own only.",
		})
	}
	if op.repeatable() {
		d.Parameters = append(d.Parameters, &huma.Param{
			Name: idempotencyKey, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "Makes it safe to repeat the request: with the same key, of at most 255 characters, it is carried out once in 24 hours, " +
				"and answered as the first time, with Idempotency-Replayed: true.",
		})
	}
	d.Parameters = append(d.Parameters, &huma.Param{
		Name: "lang", In: "header", Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{"en", "ar"}},
		Description: "The language of names and display texts.",
	})
	return d
}

// finish adds to the document what the framework has no field for.
func (s *Server) finish(method, path string, op operation) {
	item := s.api.OpenAPI().Paths[path]
	for m, d := range map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodDelete: item.Delete,
	} {
		if m != method || d == nil {
			continue
		}
		for status, answer := range d.Responses {
			answer.Headers = limitHeaders(status)
		}
		if d.RequestBody == nil || op.example == nil {
			continue
		}
		d.RequestBody.Content["application/json"].Example = op.example
	}
}

// serveDocument makes the OpenAPI document, once, and serves it.
func (s *Server) serveDocument() error {
	// The framework registers its own error; every answer is a Problem.
	schemas := s.api.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	document, err := json.Marshal(s.api.OpenAPI())
	if err != nil {
		return fmt.Errorf("write the OpenAPI document: %w", err)
	}
	s.engine.GET("/openapi.json", s.countPage, func(c *gin.Context) {
		c.Header("Cache-Control", "no-cache")
		c.Data(http.StatusOK, "application/json", document)
	})
	return nil
}
