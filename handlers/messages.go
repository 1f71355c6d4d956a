package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
	"nowserving/notify/message"
)

// messageTextView is a message in one language, as it goes out.
type messageTextView struct {
	Subject  string       `json:"subject" doc:"Of an e-mail."`
	Text     string       `json:"text" doc:"The service's own reminders of the day before and the hour before end with a link to the calendar file if they go by e-mail."`
	Own      bool         `json:"own" doc:"Whether any of it is the organization's own wording."`
	WhatsApp whatsAppBody `json:"whatsapp" doc:"The template that WhatsApp approved for the message; without one it does not go by WhatsApp."`
}

// whatsAppBody is a template that WhatsApp has approved.
type whatsAppBody struct {
	ContentSID string            `json:"contentSid" maxLength:"34" example:"HX0123456789abcdef0123456789abcdef" doc:"Its name at Twilio; empty: there is none."`
	Variables  map[string]string `json:"variables" doc:"What the template's own gaps are filled with, by their names, such as {\"1\": \"{{code}}\"}."`
}

type messageTemplateView struct {
	Gaps []string        `json:"gaps" nullable:"false" doc:"What may be used in the wording, as {{name}}."`
	En   messageTextView `json:"en"`
	Ar   messageTextView `json:"ar"`
}

type messageSettingsView struct {
	Templates map[string]messageTemplateView `json:"templates"`
	Reminders map[string][]string            `json:"reminders" doc:"The methods of each reminder, the preferred first: it goes out by the first that is configured and that the customer has an address for."`
}

func viewMessageSettings(m message.Settings) messageSettingsView {
	v := messageSettingsView{Templates: map[string]messageTemplateView{}, Reminders: map[string][]string{}}
	for name, t := range m.Templates {
		text := func(lang string) messageTextView {
			_, own := t.Own[lang]
			approved := whatsAppBody{t.Approved[lang].ContentSID, t.Approved[lang].Variables}
			if approved.Variables == nil {
				approved.Variables = map[string]string{}
			}
			return messageTextView{t.Texts[lang].Subject, t.Texts[lang].Text, own, approved}
		}
		v.Templates[name] = messageTemplateView{t.Gaps, text("en"), text("ar")}
	}
	for reminder, methods := range m.Reminders {
		v.Reminders[string(reminder)] = methods
	}
	return v
}

// messageTextBody is a wording. Omitted and empty parts get the default wording. A
// body with only a WhatsApp template leaves the wording unchanged.
type messageTextBody struct {
	Subject  *string       `json:"subject"`
	Text     *string       `json:"text"`
	WhatsApp *whatsAppBody `json:"whatsapp" doc:"Omitted, it is unchanged; with an empty contentSid it is deleted."`
}

type messageSettingsBody struct {
	Templates map[string]map[string]messageTextBody `json:"templates" doc:"By message and language (en, ar). What is not named stays; an empty subject or text gives the service's own words back."`
	Reminders map[string][]string                   `json:"reminders" doc:"By reminder: its methods (email, sms, whatsapp), the preferred first. What is not named stays; an empty list sends none, null gives the service's own choice back."`
}

func (b *messageSettingsBody) change() message.Change {
	c := message.Change{
		Wordings: map[string]map[string]message.Wording{}, Approved: map[string]map[string]message.Approved{}, Reminders: map[models.Reminder][]string{},
	}
	for name, texts := range b.Templates {
		c.Wordings[name], c.Approved[name] = map[string]message.Wording{}, map[string]message.Approved{}
		for lang, said := range texts {
			if said.Subject != nil || said.Text != nil || said.WhatsApp == nil {
				c.Wordings[name][lang] = message.Wording{Subject: models.Text(said.Subject), Text: models.Text(said.Text)}
			}
			if said.WhatsApp != nil {
				c.Approved[name][lang] = message.Approved{ContentSID: said.WhatsApp.ContentSID, Variables: said.WhatsApp.Variables}
			}
		}
	}
	for reminder, methods := range b.Reminders {
		c.Reminders[models.Reminder(reminder)] = methods
	}
	return c
}

// messageAttemptView is a line of the log.
type messageAttemptView struct {
	ID         string         `json:"id"`
	MessageID  string         `json:"messageId" doc:"The same for each attempt at a message."`
	BookingID  string         `json:"bookingId"`
	Template   string         `json:"template"`
	Method     string         `json:"method"`
	Attempt    int            `json:"attempt"`
	Status     message.Status `json:"status" enum:"sent,retried,failed,dropped" doc:"retried: it was refused, and is tried again. dropped: it was of no use any more."`
	ProviderID string         `json:"providerId" doc:"Twilio's SID, or the Message-ID of an e-mail."`
	Error      string         `json:"error" doc:"Why it was not sent: HTTP or SMTP and the status, then the carrier's own code; or timeout, unreachable, TLS, too late, obsolete."`
	DurationMS int64          `json:"durationMs"`

	Delivery      message.Receipt `json:"delivery" enum:",delivered,undelivered,failed" doc:"What Twilio reported after it took the message; empty while it has not, and for other carriers."`
	DeliveryError string          `json:"deliveryError" doc:"Twilio's code of the reason, such as 30003."`
	DeliveryAt    *models.Moment  `json:"deliveryAt" nullable:"true" doc:"When it was reported."`

	At models.Moment `json:"at"`
}

func viewMessageAttempt(a *message.Attempt) messageAttemptView {
	return messageAttemptView{
		a.ID, a.MessageID, a.BookingID, a.Template, a.Method, a.Attempt, a.Status, a.ProviderID, a.Error, a.DurationMS,
		a.Delivery, a.DeliveryError, models.AtOrNil(a.DeliveryAt), models.At(a.CreatedAt),
	}
}

func (s *Server) messageRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/messages", ID: "getMessages", Tag: "Messages", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Get the wording of messages", About: "And which reminders of appointments go out, and how.",
	}, s.getMessages)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/messages", ID: "setMessages", Tag: "Messages", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Change the wording of messages", About: "And which reminders of appointments go out, and how. Omitted fields are unchanged. " +
			"WhatsApp takes templates only that it has approved, one for each message and language: without one, reminders go by the next method, and one-time codes are refused (AUT-NO_SENDER).",
		Example: map[string]any{
			"templates": map[string]any{"otp": map[string]any{"en": map[string]any{"subject": "Your code", "text": "{{organization}}: your code is {{code}}."}}},
			"reminders": map[string]any{"oneHourBeforeAppointment": []string{"whatsapp", "sms"}},
		},
	}, s.setMessages)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/messages/log", ID: "listMessageAttempts", Tag: "Messages", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "List sent messages", About: "Every attempt of the last 30 days, the newest first; no text and no address.",
	}, s.listMessageAttempts)
}

func (s *Server) getMessages(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[messageSettingsView], error) {
	m, err := s.opts.Notify.Messages.Settings(ctx, c.OrganizationID)
	return api.Result[messageSettingsView]{Result: viewMessageSettings(m)}, err
}

func (s *Server) setMessages(ctx context.Context, c api.Caller, in *api.Body[messageSettingsBody]) (api.Result[messageSettingsView], error) {
	m, err := s.opts.Notify.Messages.SetSettings(ctx, c.OrganizationID, in.Body.change())
	return api.Result[messageSettingsView]{Result: viewMessageSettings(m)}, err
}

type messageLogQuery struct {
	Limit     int    `query:"limit" default:"10" minimum:"1" doc:"Items on a page; at most 100, more are not given."`
	Token     string `query:"nextPageToken" doc:"From the page before."`
	BookingID string `query:"bookingId"`
	MessageID string `query:"messageId"`
	Template  string `query:"template"`
	Method    string `query:"method" enum:"email,sms,whatsapp"`
	Status    string `query:"status" enum:"sent,retried,failed,dropped"`
	Delivery  string `query:"delivery" enum:"delivered,undelivered,failed"`
	From      string `query:"from" doc:"A day (2026-03-01) of the organization, or a moment (RFC 3339)."`
	To        string `query:"to" doc:"A day, to its end, or a moment."`
}

func (s *Server) listMessageAttempts(ctx context.Context, c api.Caller, in *messageLogQuery) (api.List[messageAttemptView], error) {
	page := api.PageOf(in.Limit, in.Token)
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err != nil {
		return api.List[messageAttemptView]{}, err
	}
	f := message.Filter{
		BookingID: in.BookingID, MessageID: in.MessageID, Template: in.Template, Method: in.Method, Status: message.Status(in.Status),
		Delivery: message.Receipt(in.Delivery),
	}
	if f.From, err = beginning(in.From, o.Zone); err != nil {
		return api.List[messageAttemptView]{}, err
	}
	if f.To, err = ending(in.To, o.Zone); err != nil {
		return api.List[messageAttemptView]{}, err
	}
	rows, err := s.opts.Notify.Messages.List(ctx, c.OrganizationID, f, page)
	return api.ListOf(rows, page.Limit, func(a *message.Attempt) string { return a.ID }, viewMessageAttempt), err
}
