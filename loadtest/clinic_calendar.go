package loadtest

import (
	"context"
	"net/http"
	"time"

	"nowserving/loadtest/client"
)

// appointmentService is the booking type of the clinic's appointments.
const appointmentService = "Follow-up visit"

// openCalendar gives the clinic hours, a holiday, custom fields, a website, a service by
// appointment and some appointments.
func (c *Clinic) openCalendar(ctx context.Context, specialist string) error {
	slot := func(from, to int) map[string]int { return map[string]int{"from": from, "to": to} }
	for _, put := range []struct {
		what, path string
		body       any
	}{
		{"set the hours", "/management/timeRules", map[string]any{
			"depthOfDays": 60, "scheduleAfterHoursFromNow": 1,
			"rules": []any{
				map[string]any{"name": "Weekdays", "weekdays": []int{0, 1, 2, 3, 4}, "slots": []any{slot(800, 1200), slot(1300, 2000)}},
				map[string]any{"name": "Weekend", "weekdays": []int{5, 6}, "slots": []any{slot(1600, 2100)}},
			},
		}},
		{"set the holidays", "/management/offRules", map[string]any{
			"rules": []any{map[string]any{"name": "National day", "from": "2026-09-23", "rrule": "FREQ=YEARLY"}},
		}},
		{"define custom fields", "/management/customFields/booking", []any{
			map[string]any{
				"id": "specialty", "name": "Specialty", "name_translations": map[string]string{"en": "Specialty", "ar": "التخصص"},
				"type": "options", "visibility": "public", "optional": true, "info": map[string]any{"filterResources": true},
				"options": []any{
					map[string]any{"value": "general", "name": "General medicine"}, map[string]any{"value": "children", "name": "Children"},
				},
			},
			map[string]any{
				"id": "family", "name": "Family members who come along", "type": "number", "visibility": "public", "optional": true, "minutes": 5,
			},
			map[string]any{
				"id": "reason", "name": "Reason for the visit", "name_translations": map[string]string{"en": "Reason for the visit", "ar": "سبب الزيارة"},
				"type": "paragraph", "visibility": "public", "optional": true,
			},
		}},
		{"make the website", "/management/website", map[string]any{
			"displayName": "Al Noor Clinic", "description": "Family medicine in Riyadh. Walk in, or book a time.",
			"bookingPolicy": "specifyAndLeastFirst", "bookingTimeSplitting": "oclockAndHalf", "whatsapp": "+966500000000",
			"theme": map[string]any{"primaryColor": "#0f766e"},
		}},
	} {
		if err := c.api.Call(ctx, put.what, http.MethodPut, put.path, put.body, nil, false); err != nil {
			return err
		}
	}
	var t client.Envelope[client.Created]
	err := c.api.Call(ctx, "create type", http.MethodPost, "/management/types", map[string]any{
		"name": appointmentService, "name_translations": map[string]string{"en": appointmentService, "ar": "زيارة متابعة"},
		"minutes": 20, "leaveMinutesAfter": 10, "on": true, "bookFromWebsite": true, "autoConfirm": true,
	}, &t, false)
	if err != nil {
		return err
	}
	err = c.api.Call(ctx, "change resource", http.MethodPut, "/management/resources/"+specialist, map[string]any{
		"types": []string{c.types[0], t.Result.ID}, "category": "Doctors", "meta": map[string]any{"specialty": []string{"general", "children"}},
	}, nil, false)
	if err != nil {
		return err
	}
	return c.book(ctx, t.Result.ID)
}

// maxAppointments is how many appointments the clinic opens with.
const maxAppointments = 6

// book makes appointments at every other of the next free times.
func (c *Clinic) book(ctx context.Context, typeID string) error {
	var free client.Envelope[[]struct {
		Date  string `json:"date"`
		Times []struct {
			Time int `json:"time"`
		} `json:"times"`
	}]
	err := c.api.Call(ctx, "list free times", http.MethodPost, "/availability/times", map[string]any{
		"type": typeID, "from": time.Now().UTC().Format(time.RFC3339), "limit": 2,
	}, &free, false)
	if err != nil {
		return err
	}
	made := 0
	for _, day := range free.Result {
		for i := 0; i < len(day.Times) && made < maxAppointments; i += 2 {
			err := c.api.Call(ctx, "make an appointment", http.MethodPut, "/management/scheduling/new", map[string]any{
				"type": typeID, "date": day.Date, "time": day.Times[i].Time,
				"customerIdentifier":      map[string]string{"firstName": firstNames[made], "lastName": lastNames[made]},
				"bookingInfoCustomFields": map[string]string{"reason": "Results of the last visit"},
			}, nil, false)
			if err != nil {
				return err
			}
			made++
		}
	}
	return nil
}
