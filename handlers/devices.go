package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
	"nowserving/notify/push"
)

// deviceView is a device as its owner sees it.
type deviceView struct {
	ID        string        `json:"id"`
	Platform  string        `json:"platform"`
	Lang      string        `json:"lang"`
	CreatedAt models.Moment `json:"createdAt"`
}

type deviceBody struct {
	Token    string `json:"token" required:"true" minLength:"1" maxLength:"4096" doc:"The registration token that FCM gave the app."`
	Platform string `json:"platform" required:"true" enum:"ios,android,web"`
	Lang     string `json:"lang" maxLength:"35" example:"ar" doc:"Of the notifications: en or ar; that of the request by default."`
}

type deviceRef struct {
	Token string `json:"token" required:"true" minLength:"1" maxLength:"4096"`
}

// deviceOf makes a device of the caller.
func deviceOf(c api.Caller) *push.Device {
	d := &push.Device{OrganizationID: c.OrganizationID}
	if c.Kind == access.KindCustomer {
		d.CustomerID = &c.SubjectID
	} else {
		d.MemberID = &c.SubjectID
	}
	if c.SessionID != "" {
		d.SessionID = &c.SessionID
	}
	return d
}

func (s *Server) deviceRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/devices", ID: "registerDevice", Tag: "Devices", Roles: api.Customers | api.Members,
		Summary: "Register a device for notifications",
		About:   "Of one's own bookings, or to a provider of those that wait. A token belongs to the last account that registered it. A person has 20 devices at most; one more removes the oldest. Signing out removes the devices of the session.",
		Example: map[string]any{"token": "cZ1xT…", "platform": "android", "lang": "ar"}, //nolint:gosec // an example
	}, s.registerDevice)
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/devices", ID: "removeDevice", Tag: "Devices", Roles: api.Customers | api.Members,
		Summary: "Unregister a device", About: "Before signing out; a token that is not registered is no error.",
		Example: map[string]any{"token": "cZ1xT…"}, //nolint:gosec // an example
	}, s.removeDevice)
}

func (s *Server) registerDevice(ctx context.Context, c api.Caller, in *api.Body[deviceBody]) (api.Result[deviceView], error) {
	d := deviceOf(c)
	d.Platform, d.Lang = in.Body.Platform, c.Lang
	if in.Body.Lang != "" {
		d.Lang = api.Language(in.Body.Lang)
	}
	if err := s.opts.Notify.Pushes.RegisterDevice(ctx, d, in.Body.Token); err != nil {
		return api.Result[deviceView]{}, err
	}
	return api.Result[deviceView]{Result: deviceView{d.ID, d.Platform, d.Lang, models.At(d.CreatedAt)}}, nil
}

func (s *Server) removeDevice(ctx context.Context, c api.Caller, in *api.Body[deviceRef]) (api.Message, error) {
	return api.Message{Message: "The device gets no more notifications."}, s.opts.Notify.Pushes.RemoveDevice(ctx, deviceOf(c), in.Body.Token)
}
