package handlers

import (
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"nowserving/handlers/api"
	"nowserving/models"
	"nowserving/notify/webhook"
)

// webhookHeaders are the headers of every delivery.
var webhookHeaders = []*huma.Param{
	{Name: "webhook-id", Example: exampleID, Description: "The delivery's id, the same for every attempt and replay."},
	{Name: "webhook-timestamp", Example: "1772353800", Description: "When this attempt was made, in Unix seconds. Refuse one that is more than five minutes away."},
	{
		Name: "webhook-signature", Example: "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
		Description: "As Standard Webhooks says: v1, and the base64 HMAC-SHA256 of webhook-id.webhook-timestamp.body, whose key is the decoded secret after whsec_. " +
			"There are two, with a space between them, for 24 hours after the secret was rotated.",
	},
	{
		Name: "x-icos-signature", Example: "6a2f6d9c0d3a4a0f9e0a5c7f2b1d8e4c3f5a7b9d1e3c5a7f9b1d3e5f7a9c1b3d",
		Description: "The hex HMAC-SHA256 of the body, whose key is the newest secret as it is written, whsec_ included.",
	},
}

// triggerTexts are the summary and the description of each trigger.
var triggerTexts = map[webhook.Trigger][2]string{
	webhook.TriggerNewBooking:                  {"An appointment asks for approval", "Only where types are not confirmed by themselves."},
	webhook.TriggerNewAppointment:              {"An appointment is confirmed", ""},
	webhook.TriggerAppointmentRescheduled:      {"An appointment takes the place of another", "data.rescheduledFrom is the booking it replaces."},
	webhook.TriggerBookingRejected:             {"A request for an appointment is rejected", ""},
	webhook.TriggerCustomerCanceled:            {"The customer cancels a booking", ""},
	webhook.TriggerProviderCanceled:            {"Staff cancel a booking", "data.cancelReason says why."},
	webhook.TriggerBookingUnassigned:           {"A customer joins a queue", "Every resource that serves the type may take the booking."},
	webhook.TriggerBookingAssigned:             {"A resource takes a booking", "Its patient is called at the same time: see bookingCalled."},
	webhook.TriggerBookingExpired:              {"A booking expires because no resource takes it in time", ""},
	webhook.TriggerQueuePositionUpdated:        {"The place of a waiting booking changes", "data.queuePosition is the new one."},
	webhook.Trigger(models.ReminderDayBefore):  {"An appointment begins in 24 hours", ""},
	webhook.Trigger(models.ReminderHourBefore): {"An appointment begins in 60 minutes", ""},
	webhook.Trigger(models.ReminderTenBefore):  {"An appointment begins in 10 minutes", ""},
	webhook.Trigger(models.ReminderAtStart):    {"An appointment begins", ""},
	webhook.Trigger(models.ReminderAfterEnd):   {"The planned end of an appointment has passed", ""},
	webhook.Trigger(models.ReminderDayAfter):   {"An appointment ended 24 hours ago", ""},
	webhook.TriggerBookingCalled:               {"A patient is called", ""},
	webhook.TriggerBookingRecalled:             {"A patient is called again", ""},
	webhook.TriggerBookingStarted:              {"A visit begins", ""},
	webhook.TriggerBookingEnded:                {"A visit ends", ""},
	webhook.TriggerBookingNoShow:               {"A patient did not come", ""},
	webhook.TriggerBookingHeld:                 {"A waiting booking is put on hold", ""},
	webhook.TriggerBookingReturned:             {"A booking waits again", "It was held, or its call was undone (data.undone is assign)."},
}

// addWebhooks describes the deliveries in the OpenAPI document.
func addWebhooks(document *huma.OpenAPI) {
	payload := document.Components.Schemas.Schema(reflect.TypeFor[webhook.Payload](), true, "")
	headers := make([]*huma.Param, len(webhookHeaders))
	for i, h := range webhookHeaders {
		shared := *h
		shared.In, shared.Required, shared.Schema = "header", true, &huma.Schema{Type: huma.TypeString}
		document.Components.Parameters[h.Name] = &shared
		headers[i] = &huma.Param{Ref: api.ParameterPrefix + h.Name}
	}
	document.Webhooks = map[string]*huma.PathItem{}
	for _, trigger := range webhook.Triggers {
		document.Webhooks[string(trigger)] = &huma.PathItem{Post: deliveryOperation(trigger, payload, headers)}
	}
}

// deliveryOperation describes the deliveries of a trigger.
func deliveryOperation(trigger webhook.Trigger, payload *huma.Schema, headers []*huma.Param) *huma.Operation {
	texts := triggerTexts[trigger]
	clinic := &models.Organization{ID: exampleOther, Name: "Al Noor", Timezone: "Asia/Riyadh"}
	return &huma.Operation{
		OperationID: string(trigger) + "Webhook", Tags: []string{"Webhooks"}, Summary: texts[0], Parameters: headers, Security: []map[string][]string{},
		Description: strings.TrimSpace(texts[1] + " Sent to the webhooks with the trigger " + string(trigger) + "."),
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {
			Schema: &huma.Schema{
				AllOf:      []*huma.Schema{payload},
				Properties: map[string]*huma.Schema{"trigger": {Type: huma.TypeString, Enum: []any{string(trigger)}}},
			},
			Example: webhook.SamplePayload(trigger, clinic),
		}}},
		Responses: map[string]*huma.Response{
			"2XX":     {Description: "The delivery is taken."},
			"410":     {Description: "The webhook is disabled."},
			"default": {Description: "The delivery is sent again later: at most ten times in all."},
		},
	}
}
