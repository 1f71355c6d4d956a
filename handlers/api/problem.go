package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"nowserving/booking/store"
	"nowserving/models"
)

// Problem is how every failure is answered (RFC 9457, application/problem+json).
type Problem struct { //nolint:errname // the RFC's word, and the schema's name
	Type   string      `json:"type" format:"uri-reference" example:"/docs#BKS-NOT_FOUND" doc:"Where the code is described: an address in the API reference."`
	Title  string      `json:"title" doc:"The same for every failure with this code."`
	Status int         `json:"status"`
	Detail string      `json:"detail" doc:"What was wrong with this very request."`
	Code   models.Code `json:"code" example:"BKS-NOT_FOUND" doc:"Stable; see the error codes."`
	// RequestID is also in the header X-Request-Id and in the log.
	RequestID string       `json:"requestId"`
	Errors    []FieldError `json:"errors,omitempty" doc:"The fields that are missing or wrong, at most 20 of them."`
	// Alternatives and Bookings are those of models.Error.
	Alternatives []models.Alternative `json:"alternatives,omitempty" doc:"With SCH-SLOT_TAKEN: the next free times, at most three."`
	Bookings     []string             `json:"bookings,omitempty" doc:"With CAL-BOOKED, RES-IN_USE and TYP-IN_USE: the ids of the appointments that are booked, at most 100."`

	retryAfter int
	// Challenge is the header WWW-Authenticate of a 401. Default Bearer.
	Challenge string `json:"-"`
}

// FieldError says what is wrong with one field.
type FieldError struct {
	Field   string `json:"field" example:"resourceId"`
	Message string `json:"message"`
}

// Error implements error.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", cmp.Or(p.Challenge, "Bearer"))
	}
	return h
}

// problemType is the content type of a Problem.
const problemType = "application/problem+json"

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

func failureOf(code models.Code) models.Failure {
	var internal models.Failure
	for _, f := range models.Failures {
		if f.Code == code {
			return f
		}
		if f.Code == models.CodeInternal {
			internal = f
		}
	}
	return internal
}

// unavailablePause is the Retry-After of a 503 whose error names no time.
const unavailablePause = 2 * time.Second

// ProblemOf turns any error into an answer; nothing else does. A *models.Error is
// answered as it is. Any other error is logged, and the client learns only the
// request id.
func (a *API) ProblemOf(ctx context.Context, err error) *Problem {
	e, ok := errors.AsType[*models.Error](err)
	if !ok {
		e = a.hide(ctx, err)
	}
	f := failureOf(e.Code)
	status := statuses[f.Code]
	lang := langOf(ctx)
	pause := e.RetryAfter
	if pause == 0 && status == http.StatusServiceUnavailable {
		pause = unavailablePause
	}
	p := &Problem{
		Type: a.PublicURL + "/docs#" + string(f.Code), Title: f.MeaningIn(lang), Status: status, Detail: e.Detail, Code: f.Code, RequestID: requestID(ctx),
		Alternatives: e.Alternatives, Bookings: e.Bookings, retryAfter: int(math.Ceil(pause.Seconds())),
	}
	if lang == "ar" { // what is special about this request is known in English only
		p.Detail = p.Title
	}
	if e.Field != "" {
		p.Errors = []FieldError{{shortened(e.Field), fieldMessage(lang, e.Detail)}}
	}
	for _, f := range e.Fields[:min(len(e.Fields), maxFieldErrors)] {
		p.Errors = append(p.Errors, FieldError{shortened(f.Field), fieldMessage(lang, f.Detail)})
	}
	return p
}

// hide logs an error that is not for the client and returns one that is.
func (a *API) hide(ctx context.Context, err error) *models.Error {
	log := a.Log.With("requestId", requestID(ctx), "error", err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		// The client has disconnected and reads no answer.
		log.Debug("a request was given up")
		return models.Errorf(models.CodeUnavailable, "The request was given up.")
	case ctx.Err() != nil || store.IsUnavailable(err):
		log.Warn("a request could not be served")
		return models.Errorf(models.CodeUnavailable, "The service can't answer just now.")
	}
	log.Error("a request failed")
	return models.Errorf(models.CodeInternal, "Something went wrong on our side.")
}

// WriteProblem answers requests that are no operations.
func WriteProblem(c *gin.Context, p *Problem) {
	for name, values := range p.GetHeaders() {
		c.Writer.Header()[name] = values
	}
	c.Header("Cache-Control", "no-store")
	body, err := json.Marshal(p)
	if err != nil { // it holds texts and numbers only
		c.AbortWithStatus(http.StatusInternalServerError)
		return
	}
	c.Abort()
	c.Data(p.Status, problemType, append(body, '\n'))
}

// WriteError answers a request with the Problem of an error.
func (a *API) WriteError(c *gin.Context, err error) {
	WriteProblem(c, a.ProblemOf(c.Request.Context(), err))
}

func (a *API) refuse(code models.Code, detail string) gin.HandlerFunc {
	return func(c *gin.Context) {
		a.WriteError(c, cmp.Or(a.ChargeAddress(c), error(models.Errorf(code, "%s", detail))))
	}
}

var missingProperty = regexp.MustCompile(`property (\S+) `)

// translate turns the API framework's own answers, which are about the form of
// a request, into a Problem. It is a huma.Transformer.
func (a *API) translate(ctx huma.Context, _ string, body any) (any, error) {
	m, ok := body.(*huma.ErrorModel)
	if !ok {
		return body, nil
	}
	e := models.Errorf(models.CodeInvalid, "A field is missing or has a wrong type or value.")
	if m.Status != http.StatusUnprocessableEntity {
		if m.Status >= http.StatusInternalServerError {
			a.Log.Error("a request failed", "requestId", requestID(ctx.Context()), "error", m)
			e = models.Errorf(models.CodeInternal, "Something went wrong on our side.")
		} else {
			e = models.Errorf(models.CodeMalformed, "The request can't be read.")
		}
	}
	p := a.ProblemOf(ctx.Context(), e)
	p.Status = m.Status // it is sent already
	if e.Code != models.CodeInternal {
		// The framework finds unknown members in no order.
		slices.SortStableFunc(m.Errors, func(a, b *huma.ErrorDetail) int { return strings.Compare(a.Location, b.Location) })
		for _, d := range m.Errors[:min(len(m.Errors), maxFieldErrors)] {
			f := fieldError(d)
			if message, unknown := a.unknownMember(ctx.Operation(), d); unknown {
				f.Message = message
			}
			p.Errors = append(p.Errors, FieldError{shortened(f.Field), fieldMessage(langOf(ctx.Context()), shortened(f.Message))})
		}
		slices.SortStableFunc(p.Errors, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) })
	}
	return p, nil
}

const (
	// maxFieldErrors is how many wrong fields a Problem lists.
	maxFieldErrors = 20
	// maxFieldName bounds the names and messages in it, in bytes: a client chooses
	// the names of unknown members.
	maxFieldName = 200
)

// shortened cuts a text that is longer than maxFieldName.
func shortened(text string) string {
	if len(text) <= maxFieldName {
		return text
	}
	return strings.ToValidUTF8(text[:maxFieldName], "") + "…"
}

// fieldError names the field plainly: "resourceId", not "body.resourceId".
func fieldError(d *huma.ErrorDetail) FieldError {
	field := d.Location
	for _, prefix := range []string{"body.", "query.", "path.", "header."} {
		field = strings.TrimPrefix(field, prefix)
	}
	if strings.HasPrefix(field, "body[") { // the body is a list
		field = strings.TrimPrefix(field, "body")
	}
	found := missingProperty.FindStringSubmatch(d.Message)
	if found == nil {
		return FieldError{field, d.Message}
	}
	if field == "body" {
		field = found[1]
	} else {
		field += "." + found[1]
	}
	if _, what, told := strings.Cut(d.Message, " : "); told {
		return FieldError{field, what}
	}
	return FieldError{field, missing}
}

const missing = models.FieldMissing

// fieldMessage says in a language what is wrong with a field: in Arabic, only
// whether it is missing, unknown or wrong.
func fieldMessage(lang, message string) string {
	switch {
	case lang != "ar":
		return message
	case message == missing:
		return "هذا الحقل مطلوب."
	case strings.HasPrefix(message, unknownField), message == models.FieldUnknown:
		return "هذا الحقل غير معروف."
	}
	return "قيمة هذا الحقل غير صحيحة."
}
