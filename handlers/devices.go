package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/access"
	"nowserving/models"
	"nowserving/notify"
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

// ownDevice is a device of whoever asks.
func (c caller) ownDevice() *notify.Device {
	d := &notify.Device{OrganizationID: c.OrganizationID}
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
	register(s, operation{
		method: http.MethodPost, path: "/devices", id: "registerDevice", tag: "Devices", who: customers | members,
		summary: "Get notifications on a device",
		about:   "Of one's own bookings, or to a provider of those that wait. A token belongs to the last account that registered it. A person has 20 devices at most; one more removes the oldest. Signing out removes the devices of the session.",
		example: map[string]any{"token": "cZ1xT…", "platform": "android", "lang": "ar"}, //nolint:gosec // an example
	}, func(ctx context.Context, c caller, in *with[deviceBody]) (result[deviceView], error) {
		d := c.ownDevice()
		d.Platform, d.Lang = in.Body.Platform, c.Lang
		if in.Body.Lang != "" {
			d.Lang = language(in.Body.Lang)
		}
		if err := s.o.Notify.RegisterDevice(ctx, d, in.Body.Token); err != nil {
			return result[deviceView]{}, err
		}
		return result[deviceView]{deviceView{d.ID, d.Platform, d.Lang, models.At(d.CreatedAt)}}, nil
	})
	register(s, operation{
		method: http.MethodDelete, path: "/devices", id: "removeDevice", tag: "Devices", who: customers | members,
		summary: "Get no more notifications on a device", about: "Before signing out; a token that is not registered is no error.",
		example: map[string]any{"token": "cZ1xT…"}, //nolint:gosec // an example
	}, func(ctx context.Context, c caller, in *with[deviceRef]) (message, error) {
		return message{"The device gets no more notifications."}, s.o.Notify.RemoveDevice(ctx, c.ownDevice(), in.Body.Token)
	})
}
