package handlers

import (
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"nowserving/models"
	"nowserving/notify"
)

// addExamples gives the main answers an example. Answers of one type share it.
func addExamples(api *huma.OpenAPI, publicURL string) {
	examples := answerExamples(publicURL)
	api.Components.Examples = map[string]*huma.Example{}
	for _, item := range api.Paths {
		for _, op := range operationsOf(item) {
			media := op.Responses["200"].Content["application/json"]
			if media == nil || media.Schema.Ref == "" {
				continue
			}
			value, ok := examples[api.Components.Schemas.TypeFromRef(media.Schema.Ref)]
			if !ok {
				continue
			}
			name := media.Schema.Ref[len(schemaPrefix):]
			api.Components.Examples[name] = &huma.Example{Value: value}
			media.Examples = map[string]*huma.Example{"answer": {Ref: "#/components/examples/" + name}}
		}
	}
}

// answerExamples are examples by the types of the answers.
func answerExamples(publicURL string) map[reflect.Type]any {
	all := map[reflect.Type]any{}
	at := time.Date(2026, 3, 1, 8, 30, 0, 0, time.UTC)
	later := func(minutes int) *time.Time {
		t := at.Add(time.Duration(minutes) * time.Minute)
		return &t
	}
	general, doctor := models.Translation{En: "General", Ar: "عام"}, models.Translation{En: "Dr. Sarah", Ar: "د. سارة"}
	position, wait := 2, 20
	booking := BookingView{
		ID: exampleID, Status: models.StatusPendingAssignment, Stage: models.StageWaiting, Ticket: "A042",
		TypeID: "d3q1v5s8k7c0a1b2c3f0", Type: &typeRef{"d3q1v5s8k7c0a1b2c3f0", general.En, general, 10},
		CustomerID: exampleOther, Customer: &customerRef{ID: exampleOther, FirstName: "Mona", LastName: "Abdullah", Phone: "+966500000001"},
		QueuePosition: &position, EstimatedWaitMinutes: &wait, EstimatedWait: &models.Estimate{Low: 12, Likely: 18, High: 30},
		PendingSince: models.AtOrNil(&at), CreatedAt: models.At(at), ExpiresAt: models.AtOrNil(later(60)), Duration: new(10), Info: models.Fields{"reason": "Checkup"},
		Display: displayText{Type: general.En, Status: word(models.StatusPendingAssignment, "en"), Stage: word(models.StageWaiting, "en")}, Version: 1,
	}
	joined := joinedView{booking, "the-ticket-token", publicURL + "/ticket/" + exampleID + "#the-ticket-token"}
	offer := OfferView{
		ID: exampleID, Name: general.En, NameTranslations: general, Minutes: 10, Price: "150.00", PaymentMethods: []string{"manual"},
		Category: "general", Color: "#00ff00", BookFromWebsite: true, PendingCount: 3,
	}
	place := PlaceView{
		ID: exampleID, Name: doctor.En, NameTranslations: doctor, Category: "doctors", BookFromWebsite: true, Types: []string{exampleOther},
	}
	addExample(all, booking)
	addExample(all, joined)
	addExample(all, offer)
	addExample(all, typeView{OfferView: offer, Prefix: "A", On: true, QueueTimeoutMinutes: 180, CreatedAt: models.At(at)})
	addExample(all, place)
	addExample(all, resourceView{PlaceView: place, On: true, Activated: true, CreatedAt: models.At(at)})
	addExample(all, customerView{exampleID, "+966500000001", "mona@example.com", "Mona", "Abdullah", "", models.Fields{}, models.At(at)})
	addExample(all, memberView{
		ID: exampleID, Role: models.RoleProvider, Phone: "+966500000002", FirstName: "Sarah", LastName: "Ali",
		Resources: []string{exampleOther}, ViewConfirmed: []string{}, ViewRequests: []string{}, CreatedAt: models.At(at),
	})
	addExample(all, DisplayView{exampleID, "Waiting room", []string{exampleOther}, models.At(at)})
	all[reflect.TypeFor[joinedView]()] = joined
	all[reflect.TypeFor[message]()] = message{"Deleted."}
	all[reflect.TypeFor[sessionView]()] = sessionView{
		RefreshToken: "the-refresh-token", AccessToken: "the-access-token", AccessTokenExpiresAt: models.At(*later(15)),
		User: userView{ID: exampleID, Kind: "customer", FirstName: "Mona", LastName: "Abdullah", Phone: "+966500000001", OrganizationID: exampleOther},
	}
	all[reflect.TypeFor[webhookDone]()] = webhookDone{"success", &webhookMade{WebhookView: WebhookView{
		ID: exampleID, Trigger: notify.TriggerBookingAssigned, URL: "https://example.com/hooks/clinic", CreatedAt: models.At(at),
	}}}
	return all
}

// addExample adds the answer with one of a kind, and the list of them.
func addExample[T any](all map[reflect.Type]any, one T) {
	all[reflect.TypeFor[result[T]]()] = result[T]{one}
	all[reflect.TypeFor[list[T]]()] = list[T]{Result: []T{one}}
}
