package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"nowserving/handlers/web"
)

// CalendarType is the media type of a calendar.
const CalendarType = "text/calendar"

// File is the answer of an operation that answers no JSON.
type File struct {
	// Name is under which a browser saves the file. If it is empty, the browser shows
	// the file.
	Name string
	Body []byte
	// CacheControl is the header of that name. Default no-store.
	CacheControl string
}

// RegisterFile is Register for an operation that answers a file of text in UTF-8. A
// client that has the file gets 304.
func RegisterFile[I any](a *API, op Operation, mediaType string, handle func(ctx context.Context, c Caller, in *I) (File, error)) {
	a.operations = append(a.operations, op)
	documented := a.documented(op)
	documented.Middlewares = huma.Middlewares{a.admit(op)}
	documented.Responses["200"] = &huma.Response{
		Description: http.StatusText(http.StatusOK), Content: map[string]*huma.MediaType{mediaType: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
	documented.Responses["304"] = &huma.Response{Ref: "#/components/responses/" + a.notModified()}
	huma.Register(a.huma, documented, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		f, err := handle(ctx, CallerOf(ctx), in)
		if err != nil {
			return nil, a.ProblemOf(ctx, err)
		}
		file, err := web.NewFile(mediaType+"; charset=utf-8", f.Body)
		if err != nil {
			return nil, a.ProblemOf(ctx, err)
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			if f.Name != "" {
				ctx.SetHeader("Content-Disposition", `attachment; filename="`+f.Name+`"`)
			}
			if f.CacheControl != "" {
				ctx.SetHeader("Cache-Control", f.CacheControl)
			}
			file.Send(humagin.Unwrap(ctx))
		}}, nil
	})
	a.finish(op)
}

// notModified returns the name of the shared response of a file that the client has.
func (a *API) notModified() string {
	const name = "NotModified"
	if responses := a.huma.OpenAPI().Components.Responses; responses[name] == nil {
		responses[name] = &huma.Response{Description: "The file is the one that If-None-Match names."}
	}
	return name
}

// calendarSuffix ends the paths of calendars. The router takes a parameter for all of a
// segment, so it knows /customer/bookings/{bookingId}.ics as
// /customer/bookings/:bookingId/.ics, and routable translates requests.
const calendarSuffix = ".ics"

// adapter registers the operations of the API framework with the router.
type adapter struct{ *gin.Engine }

// Handle implements huma.Adapter.
func (a adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	path := strings.ReplaceAll(op.Path, "}"+calendarSuffix, "}/"+calendarSuffix)
	path = strings.NewReplacer("{", ":", "}", "").Replace(path)
	a.Engine.Handle(op.Method, path, func(c *gin.Context) { handler(humagin.NewContext(op, c)) })
}

// routable returns a request as the router knows its path.
func routable(r *http.Request) *http.Request {
	segments, isCalendar := strings.CutSuffix(r.URL.Path, calendarSuffix)
	if !isCalendar {
		return r
	}
	routed, address := *r, *r.URL
	address.Path, address.RawPath = segments+"/"+calendarSuffix, ""
	routed.URL = &address
	return &routed
}
