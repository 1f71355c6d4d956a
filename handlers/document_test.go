package handlers_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nowserving/notify/webhook"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documentsFolder names a folder that the documents are written to besides:
// .ci/document has other tools look at them there.
const documentsFolder = "NOWSERVING_TEST_DOCUMENTS"

func TestDocumentsAreServedToEverybody(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	for path, version := range map[string]string{"/openapi.json": "openapi 3.1.0", "/openapi-3.0.json": "openapi 3.0.3", "/asyncapi.json": "asyncapi 3.0.0"} {
		a := h.send(request{method: http.MethodGet, path: path}).ok()
		assert.Equal(t, "application/json", a.header.Get("Content-Type"), path)
		key, number, _ := strings.Cut(version, " ")
		assert.Equal(t, number, a.str(key), path)
		assert.NotEmpty(t, a.str("info.license.name"), path)
		assert.NotEmpty(t, a.str("info.contact.name"), path)
		assert.NotContains(t, string(a.raw), "patternDescription", path)
		a.refersOnlyToWhatIsThere(a.body)
		assert.Equal(t, a.raw, h.send(request{method: http.MethodGet, path: path}).ok().raw, "%s is the same each time", path)
		if folder := os.Getenv(documentsFolder); folder != "" {
			require.NoError(t, os.WriteFile(filepath.Join(folder, filepath.Base(path)), a.raw, 0o600))
		}
	}
}

func (a answer) refersOnlyToWhatIsThere(value any) {
	a.t.Helper()
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			a.refersOnlyToWhatIsThere(item)
		}
	case object:
		a.resolve(v)
		for _, member := range v {
			a.refersOnlyToWhatIsThere(member)
		}
	}
}

// What most operations have in common stands in the document once.
func TestDocumentSharesItsParts(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	doc := h.document()
	for path := range doc.members("paths") {
		for method, op := range doc.operationsAt(path) {
			responses, _ := at(op, "responses").(object)
			for status, response := range responses {
				assert.True(t, status == "200" || at1(response, "$ref") != nil, "%s %s %s", method, path, status)
			}
			parameters, _ := at(op, "parameters").([]any)
			for _, p := range parameters {
				assert.NotContains(t, []string{"lang", "Idempotency-Key", "X-APP-ID"}, at1(p, "name"), "%s %s", method, path)
			}
		}
	}
	assert.Less(t, len(doc.raw), 300_000)
}

// A document of OpenAPI 3.0 has nothing that only 3.1 knows.
func TestOlderDocumentIsOpenAPI30(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	older := h.send(request{method: http.MethodGet, path: "/openapi-3.0.json"}).ok()
	assert.Len(t, older.members("paths"), len(h.document().members("paths")))
	assert.Equal(t, true, older.at("components.schemas.Pagination.properties.nextPageToken.nullable"))
	assert.NotContains(t, older.body, "webhooks")
	var look func(value any, in string)
	look = func(value any, in string) {
		switch v := value.(type) {
		case []any:
			for _, item := range v {
				look(item, in)
			}
		case object:
			_, several := v["examples"].([]any)
			assert.False(t, several, "%s: examples", in)
			_, types := v["type"].([]any)
			assert.False(t, types, "%s: several types", in)
			assert.False(t, v["$ref"] != nil && len(v) > 1, "%s: beside a reference", in)
			for name, member := range v {
				assert.NotContains(t, []string{"const", "contentMediaType", "contentEncoding", "patternProperties"}, name, in)
				look(member, in+"/"+name)
			}
		}
	}
	look(older.body, "")
}

// Every trigger is a webhook of the document, and what it says is sent is sent.
func TestWebhooksAreDocumented(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		doc := h.document()
		contract := newContract(t, doc.raw)
		assert.Len(t, doc.members("webhooks"), len(webhook.Triggers))
		r := newReceiver(t, nil)
		c := h.newClinic()
		for _, trigger := range webhook.Triggers {
			op := doc.at("webhooks." + string(trigger) + ".post")
			assert.NotEmpty(t, at(op, "summary"), trigger)
			example, err := json.Marshal(at(op, "requestBody.content.application/json.example"))
			require.NoError(t, err)
			contract.check(t, string(trigger), example, bodyOfWebhook(string(trigger))...)
			var headers []string
			parameters, _ := at(op, "parameters").([]any)
			for _, p := range parameters {
				name, _ := at1(doc.resolve(p), "name").(string)
				headers = append(headers, name)
			}
			assert.Equal(t, []string{"webhook-id", "webhook-timestamp", "webhook-signature", "x-icos-signature"}, headers, trigger)
			c.hook(string(trigger), r.url, nil)
		}
		kind := c.newType(nil)
		room := c.newResource(object{"providerPhone": "+966500000061"}, kind)
		served, missed, gone := c.join(kind, nil).str("id"), c.join(kind, nil).str("id"), c.join(kind, nil).str("id")
		c.next(room).ok()
		c.act("start", served, nil).ok()
		c.act("end", served, nil).ok()
		c.act("hold", missed, nil).ok()
		c.act("return", missed, nil).ok()
		c.next(room).ok()
		c.act("noShow", missed, nil).ok()
		c.act("cancel", gone, object{"reason": "Asked to"}).ok()
		wanted := map[string]bool{
			"bookingUnassigned": true, "bookingAssigned": true, "bookingCalled": true, "bookingStarted": true, "bookingEnded": true,
			"bookingHeld": true, "bookingReturned": true, "bookingNoShow": true, "providerCanceled": true,
		}
		require.Eventually(t, func() bool {
			for _, a := range r.arrivals() {
				delete(wanted, a.trigger())
			}
			return len(wanted) == 0
		}, patience, 10*time.Millisecond)
		for _, a := range r.arrivals() {
			contract.check(t, a.trigger(), a.raw, bodyOfWebhook(a.trigger())...)
			for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature", "x-icos-signature"} {
				assert.NotEmpty(t, a.header.Get(name), a.trigger())
			}
		}
	})
}

func bodyOfWebhook(trigger string) []string {
	return []string{"webhooks", trigger, "post", "requestBody", "content", "application/json", "schema"}
}

// Everything that a subscriber is sent is as the AsyncAPI document says.
func TestLiveChannelsAreDocumented(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		doc := h.send(request{method: http.MethodGet, path: "/asyncapi.json"}).ok()
		contract := newContract(t, doc.raw)
		assert.Equal(t, "/connection/websocket", doc.str("servers.service.pathname"))
		assert.NotEmpty(t, doc.list("x-close-codes"))
		assert.NotEmpty(t, doc.list("x-errors"))
		seen := map[string]bool{}
		check := func(kind string, sent any) {
			t.Helper()
			name := fmt.Sprintf("%s-%v", kind, at(sent, "type"))
			require.NotNil(t, at1(doc.members("channels." + kind)["messages"], name), name)
			raw, err := json.Marshal(sent)
			require.NoError(t, err)
			contract.check(t, name, raw, "components", "messages", name, "payload")
			seen[name] = true
		}

		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(object{"name": "Room 1"}, kind)
		screen := c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok()
		published := map[string]<-chan any{}
		watch := func(token, kind, id string) {
			t.Helper()
			snapshot, publications, err := h.watch(token, kind+":"+id)
			require.NoError(t, err)
			check(kind, snapshot)
			published[kind+" "+id] = publications
		}
		// next takes what is published up to a type.
		next := func(kind, id string, types ...string) {
			t.Helper()
			for _, wanted := range types {
				deadline := time.After(patience)
				for got := ""; got != wanted; {
					select {
					case p := <-published[kind+" "+id]:
						check(kind, p)
						got, _ = at(p, "type").(string)
					case <-deadline:
						t.Fatalf("%s was not published", wanted)
					}
				}
			}
		}
		called, waiting := c.join(kind, object{"note": "Aches"}), c.join(kind, nil)
		id := called.str("id")
		watch(called.str("ticketToken"), "booking", id)
		watch(c.key, "booking", waiting.str("id"))
		watch(c.key, "queue", room)
		watch(screen.str("result.token"), "display", screen.str("result.id"))
		c.next(room).ok()
		next("booking", id, "MY_BOOKING_ASSIGNED")
		next("booking", waiting.str("id"), "QUEUE_POSITION_UPDATED")
		next("queue", room, "QUEUE_UPDATED")
		next("display", screen.str("result.id"), "NOW_SERVING", "DISPLAY_UPDATED")
		h.exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
		c.act("recall", id, nil).ok()
		next("booking", id, "MY_BOOKING_CALLED")
		c.act("start", id, nil).ok()
		next("booking", id, "BOOKING_UPDATED")
		c.act("end", id, nil).ok()
		next("booking", id, "MY_BOOKING_ENDED")
		next("queue", room, "NEW_PENDING_UNASSIGNED_BOOKING")
		c.act("cancel", waiting.str("id"), nil).ok()
		next("booking", waiting.str("id"), "MY_BOOKING_CANCELED")
		late := c.join(kind, nil).str("id")
		watch(c.key, "booking", late)
		h.exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", time.Now().UTC().Add(-time.Minute), late)
		next("booking", late, "MY_BOOKING_EXPIRED")
		for name := range doc.members("components.messages") {
			assert.True(t, seen[name], "%s was not sent", name)
		}
	})
}
