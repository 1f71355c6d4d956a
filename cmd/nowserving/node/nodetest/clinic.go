package nodetest

import (
	"encoding/json"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// Clinic is an organization that was made over HTTP, with a key of its own.
type Clinic struct {
	*Node
	ID  string
	Key string

	serving sync.Mutex      // guards served
	served  map[string]bool // the types that NewResource was given
}

// AlwaysOpen are time rules of a clinic that is open day and night.
var AlwaysOpen = Object{
	"depthOfDays": models.MaxDepthOfDays,
	"rules":       []any{Object{"weekdays": []int{0, 1, 2, 3, 4, 5, 6}, "slots": []any{Object{"from": 0, "to": 2400}}}},
}

// NewClinic makes an organization that is always open, and a key for it.
func (h *Node) NewClinic() *Clinic {
	h.T.Helper()
	made := h.Send(Request{Method: http.MethodPost, Path: "/management/organizations", Token: BootstrapKey, Body: Object{"name": "Al Noor", "timezone": "Asia/Riyadh"}}).OK()
	c := &Clinic{Node: h, ID: made.Str("result.id")}
	c.Key = h.Send(Request{Method: http.MethodPost, Path: "/management/apiKeys", Token: BootstrapKey, App: c.ID, Body: Object{"name": "desk"}}).OK().Str("result.key")
	require.NotEmpty(h.T, c.Key)
	if h.Store == nil { // a node of which only the URL is known
		c.Staff(http.MethodPut, "/management/timeRules", AlwaysOpen).OK()
		return c
	}
	// Tests count the requests of a key.
	h.Exec("INSERT INTO calendars (organization_id, resource_id, time_rules, version, updated_at) VALUES (?, '', ?, 1, ?)",
		c.ID, jsonText(h.T, AlwaysOpen), time.Now().UTC())
	return c
}

func jsonText(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}

// NewQueue makes an organization with one type of 10 minutes and one resource for it.
func (h *Node) NewQueue() (c *Clinic, typeID, resourceID string) {
	h.T.Helper()
	c = h.NewClinic()
	typeID = c.NewType(nil)
	return c, typeID, c.NewResource(nil, typeID)
}

// Through returns the same organization, whose requests go to another node.
func (c *Clinic) Through(h *Node) *Clinic {
	c.serving.Lock()
	defer c.serving.Unlock()
	return &Clinic{Node: h, ID: c.ID, Key: c.Key, served: maps.Clone(c.served)}
}

// Staff makes a request with the organization's key.
func (c *Clinic) Staff(method, path string, body any) Response {
	c.T.Helper()
	return c.Send(c.staffs(method, path, body))
}

// TryStaff is Staff for other goroutines than the test's. It does not check the response.
func (c *Clinic) TryStaff(method, path string, body any) (Response, error) {
	return c.Try(c.staffs(method, path, body))
}

func (c *Clinic) staffs(method, path string, body any) Request {
	return Request{Method: method, Path: path, Token: c.Key, Body: body}
}

// NewType makes a type of 10 minutes whose appointments need no approval, and returns its
// id. more adds members to the body.
func (c *Clinic) NewType(more Object) string {
	c.T.Helper()
	body := Object{"name": "General", "minutes": 10, "autoConfirm": true}
	for k, v := range more {
		body[k] = v
	}
	return c.Staff(http.MethodPost, "/management/types", body).OK().Str("result.id")
}

// NewResource makes a resource for types and returns its id. more adds members to the
// body.
func (c *Clinic) NewResource(more Object, types ...string) string {
	c.T.Helper()
	body := Object{"name": "Room", "types": types}
	for k, v := range more {
		body[k] = v
	}
	c.serving.Lock()
	if c.served == nil {
		c.served = map[string]bool{}
	}
	for _, id := range types {
		c.served[id] = true
	}
	c.serving.Unlock()
	return c.Staff(http.MethodPost, "/management/resources", body).OK().Str("result.id")
}

// Serve makes a resource for a type that has none, because joins of such a type are
// refused.
func (c *Clinic) Serve(typeID string) string {
	c.T.Helper()
	c.serving.Lock()
	served := c.served[typeID]
	c.serving.Unlock()
	if !served {
		c.NewResource(Object{"name": "Somewhere"}, typeID)
	}
	return typeID
}

// Join adds a walk-in to the queue of a type, from the desk. A type without a resource
// gets one first.
func (c *Clinic) Join(typeID string, more Object) Response {
	c.T.Helper()
	c.Serve(typeID)
	return c.Staff(http.MethodPut, JoinPath, Joining(typeID, more)).OK()
}

// TryJoin is Join for other goroutines than the test's, and for a type with a resource. It
// does not check the response.
func (c *Clinic) TryJoin(typeID string) (Response, error) {
	return c.TryStaff(http.MethodPut, JoinPath, Joining(typeID, nil))
}

// JoinPath is the operation by which staff add a walk-in or an appointment.
const JoinPath = "/management/scheduling/new"

// Joining is the body of a request to join the queue of a type.
func Joining(typeID string, more Object) Object {
	body := Object{"type": typeID, "assign": false}
	for k, v := range more {
		body[k] = v
	}
	return body
}

// Act is POST /management/bookings/<verb>.
func (c *Clinic) Act(verb, bookingID string, more Object) Response {
	c.T.Helper()
	body := Object{"bookingId": bookingID}
	for k, v := range more {
		body[k] = v
	}
	return c.Staff(http.MethodPost, "/management/bookings/"+verb, body)
}

// Next calls the next patient of a resource.
func (c *Clinic) Next(resourceID string) Response {
	c.T.Helper()
	return c.Staff(http.MethodPost, "/management/queue/next", Object{"resourceId": resourceID})
}

// Position returns the position of a booking, or 0 if it does not wait.
func (c *Clinic) Position(bookingID string) int {
	c.T.Helper()
	a := c.Staff(http.MethodGet, "/management/bookings/"+bookingID, nil).OK()
	if a.At("result.queuePosition") == nil {
		return 0
	}
	return a.Num("result.queuePosition")
}

// SignIn signs a person in with FixedCode.
func (c *Clinic) SignIn(phone string, member bool) Response {
	c.T.Helper()
	body := Object{"method": "sms", "phoneNumber": phone, "isOrgMember": member}
	c.Send(Request{Method: http.MethodPost, Path: "/auth/otp/request", App: c.ID, Body: body}).OK()
	body["code"] = FixedCode
	return c.Send(Request{Method: http.MethodPost, Path: "/auth/otp/verify", App: c.ID, Body: body}).OK()
}

// Patient signs a customer in and returns their access token.
func (c *Clinic) Patient(phone string) string {
	c.T.Helper()
	return c.SignIn(phone, false).Str("accessToken")
}

// Member makes a member of a role and signs them in.
func (c *Clinic) Member(role models.Role, phone string) string {
	c.T.Helper()
	c.Exec("INSERT INTO members (id, organization_id, role, phone, created_at) VALUES (?, ?, ?, ?, ?)", models.NewID(), c.ID, role, phone, time.Now().UTC())
	return c.SignIn(phone, true).Str("accessToken")
}

// Day returns the date in Riyadh that is ahead days from today.
func Day(ahead int) string {
	return time.Now().UTC().Add(3*time.Hour).AddDate(0, 0, ahead).Format(time.DateOnly)
}

// Appointment is the body of a request for an appointment. military is its time, such
// as 930.
func Appointment(typeID, date string, military int, more Object) Object {
	body := Object{"type": typeID, "date": date, "time": military}
	for k, v := range more {
		body[k] = v
	}
	return body
}

// Schedule asks for an appointment three days from now, from the desk.
func (c *Clinic) Schedule(typeID string, military int, more Object) Response {
	c.T.Helper()
	return c.Staff(http.MethodPut, JoinPath, Appointment(typeID, Day(3), military, more))
}

// With restricts a request for an appointment to a resource.
func With(room string) Object { return Object{"resourceFilters": Object{"resource": room}} }

// EventsOf returns the stored events of a booking in order.
func (h *Node) EventsOf(bookingID string) []models.BookingEvent {
	h.T.Helper()
	var rows []struct {
		Data models.BookingEvent `gorm:"serializer:json"`
	}
	require.NoError(h.T, h.Store.Read(h.T.Context()).Table("events").Select("data").Where("booking_id = ?", bookingID).Order("id").Find(&rows).Error)
	events := make([]models.BookingEvent, len(rows))
	for i, row := range rows {
		events[i] = row.Data
	}
	return events
}

// Verifying is the request that signs a person in with a code.
func (c *Clinic) Verifying(phone, code string, member bool) Request {
	body := Object{"method": "sms", "phoneNumber": phone, "isOrgMember": member, "code": code}
	return Request{Method: http.MethodPost, Path: "/auth/otp/verify", App: c.ID, Body: body}
}

// Asking is the request for a one-time code.
func (c *Clinic) Asking(phone string, member bool) Request {
	body := Object{"method": "sms", "phoneNumber": phone, "isOrgMember": member}
	return Request{Method: http.MethodPost, Path: "/auth/otp/request", App: c.ID, Body: body}
}
