package handlers

import (
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"nowserving/handlers/api"
	"nowserving/models"
	"nowserving/notify/webhook"
)

// addExamples gives the main answers an example. Answers of one type share it.
func addExamples(document *huma.OpenAPI, publicURL string) {
	examples := answerExamples(publicURL)
	document.Components.Examples = map[string]*huma.Example{}
	for _, item := range document.Paths {
		for _, op := range api.OperationsOf(item) {
			media := op.Responses["200"].Content["application/json"]
			if media == nil || media.Schema.Ref == "" {
				continue
			}
			value, ok := examples[document.Components.Schemas.TypeFromRef(media.Schema.Ref)]
			if !ok {
				continue
			}
			name := media.Schema.Ref[len(api.SchemaPrefix):]
			document.Components.Examples[name] = &huma.Example{Value: value}
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
	booking := api.BookingView{
		ID: exampleID, Status: models.StatusPendingAssignment, Stage: models.StageWaiting, Ticket: "A042",
		TypeID: "d3q1v5s8k7c0a1b2c3f0", Type: &api.TypeRef{ID: "d3q1v5s8k7c0a1b2c3f0", Name: general.En, NameTranslations: general, Minutes: 10},
		CustomerID: exampleOther, Customer: &api.CustomerRef{ID: exampleOther, FirstName: "Mona", LastName: "Abdullah", Phone: "+966500000001"},
		QueuePosition: &position, EstimatedWaitMinutes: &wait, EstimatedWait: &models.Estimate{Low: 12, Likely: 18, High: 30},
		PendingSince: models.AtOrNil(&at), CreatedAt: models.At(at), ExpiresAt: models.AtOrNil(later(60)), Duration: new(10), Info: models.Fields{"reason": "Checkup"},
		Display: api.DisplayText{Type: general.En, Status: api.Word(models.StatusPendingAssignment, "en"), Stage: api.Word(models.StageWaiting, "en")}, Version: 1,
	}
	joined := joinedView{booking, "the-ticket-token", publicURL + "/ticket/" + exampleID + "#the-ticket-token"}
	offer := OfferView{
		NamedView: NamedView{ID: exampleID, Name: general.En, NameTranslations: general}, Minutes: 10, Price: "150.00", PaymentMethods: []string{"manual"},
		Category: "general", Color: "#00ff00", BookFromWebsite: true, PendingCount: 3,
	}
	place := PlaceView{
		NamedView: NamedView{ID: exampleID, Name: doctor.En, NameTranslations: doctor},
		Category:  "doctors", BookFromWebsite: true, Types: []string{exampleOther},
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
	all[reflect.TypeFor[api.Message]()] = api.Message{Message: "Deleted."}
	all[reflect.TypeFor[sessionView]()] = sessionView{
		RefreshToken: "the-refresh-token", AccessToken: "the-access-token", AccessTokenExpiresAt: models.At(*later(15)),
		User: userView{ID: exampleID, Kind: "customer", FirstName: "Mona", LastName: "Abdullah", Phone: "+966500000001", OrganizationID: exampleOther},
	}
	all[reflect.TypeFor[webhookDone]()] = webhookDone{"success", &webhookMade{WebhookView: WebhookView{
		ID: exampleID, Trigger: webhook.TriggerBookingAssigned, URL: "https://example.com/hooks/clinic", CreatedAt: models.At(at),
	}}}
	return all
}

// addExample adds the answer with one of a kind, and the list of them.
func addExample[T any](all map[reflect.Type]any, one T) {
	all[reflect.TypeFor[api.Result[T]]()] = api.Result[T]{Result: one}
	all[reflect.TypeFor[api.List[T]]()] = api.List[T]{Result: []T{one}}
}
