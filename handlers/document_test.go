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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/notify/webhook"
)

// documentsFolder names a folder that the documents are written to besides:
// .ci/document has other tools look at them there.
const documentsFolder = "NOWSERVING_TEST_DOCUMENTS"

func TestDocumentsAreServedToEverybody(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	for path, version := range map[string]string{"/openapi.json": "openapi 3.1.0", "/openapi-3.0.json": "openapi 3.0.3", "/asyncapi.json": "asyncapi 3.0.0"} {
		a := h.Send(nodetest.Request{Method: http.MethodGet, Path: path}).OK()
		assert.Equal(t, "application/json", a.Header.Get("Content-Type"), path)
		key, number, _ := strings.Cut(version, " ")
		assert.Equal(t, number, a.Str(key), path)
		assert.NotEmpty(t, a.Str("info.license.name"), path)
		assert.NotEmpty(t, a.Str("info.contact.name"), path)
		assert.NotContains(t, string(a.Raw), "patternDescription", path)
		refersOnlyToWhatIsThere(a, a.Body)
		assert.Equal(t, a.Raw, h.Send(nodetest.Request{Method: http.MethodGet, Path: path}).OK().Raw, "%s is the same each time", path)
		if folder := os.Getenv(documentsFolder); folder != "" {
			require.NoError(t, os.WriteFile(filepath.Join(folder, filepath.Base(path)), a.Raw, 0o600))
		}
	}
}

func refersOnlyToWhatIsThere(a nodetest.Response, value any) {
	a.T.Helper()
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			refersOnlyToWhatIsThere(a, item)
		}
	case nodetest.Object:
		a.Resolve(v)
		for _, member := range v {
			refersOnlyToWhatIsThere(a, member)
		}
	}
}

// What most operations have in common stands in the document once.
func TestDocumentSharesItsParts(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	doc := document(h)
	for path := range doc.Members("paths") {
		for method, op := range operationsAt(doc, path) {
			responses, _ := nodetest.At(op, "responses").(nodetest.Object)
			for status, response := range responses {
				assert.True(t, status == "200" || nodetest.At1(response, "$ref") != nil, "%s %s %s", method, path, status)
			}
			parameters, _ := nodetest.At(op, "parameters").([]any)
			for _, p := range parameters {
				assert.NotContains(t, []string{"lang", "Idempotency-Key", "X-APP-ID"}, nodetest.At1(p, "name"), "%s %s", method, path)
			}
		}
	}
	assert.Less(t, len(doc.Raw), 400_000)
}

// A document of OpenAPI 3.0 has nothing that only 3.1 knows.
func TestOlderDocumentIsOpenAPI30(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	older := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/openapi-3.0.json"}).OK()
	assert.Len(t, older.Members("paths"), len(document(h).Members("paths")))
	assert.Equal(t, true, older.At("components.schemas.Pagination.properties.nextPageToken.nullable"))
	assert.NotContains(t, older.Body, "webhooks")
	var look func(value any, in string)
	look = func(value any, in string) {
		switch v := value.(type) {
		case []any:
			for _, item := range v {
				look(item, in)
			}
		case nodetest.Object:
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
	look(older.Body, "")
}

// Every trigger is a webhook of the document, and what it says is sent is sent.
func TestWebhooksAreDocumented(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		doc := document(h)
		contract := nodetest.NewContract(t, doc.Raw)
		assert.Len(t, doc.Members("webhooks"), len(webhook.Triggers))
		r := nodetest.NewReceiver(t, nil)
		c := h.NewClinic()
		for _, trigger := range webhook.Triggers {
			op := doc.At("webhooks." + string(trigger) + ".post")
			assert.NotEmpty(t, nodetest.At(op, "summary"), trigger)
			example, err := json.Marshal(nodetest.At(op, "requestBody.content.application/json.example"))
			require.NoError(t, err)
			contract.Check(t, string(trigger), example, bodyOfWebhook(string(trigger))...)
			var headers []string
			parameters, _ := nodetest.At(op, "parameters").([]any)
			for _, p := range parameters {
				name, _ := nodetest.At1(doc.Resolve(p), "name").(string)
				headers = append(headers, name)
			}
			assert.Equal(t, []string{"webhook-id", "webhook-timestamp", "webhook-signature", "x-icos-signature"}, headers, trigger)
			c.Hook(string(trigger), r.URL, nil)
		}
		kind := c.NewType(nil)
		room := c.NewResource(nodetest.Object{"providerPhone": "+966500000061"}, kind)
		served, missed, gone := c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id")
		c.Next(room).OK()
		c.Act("start", served, nil).OK()
		c.Act("end", served, nil).OK()
		c.Act("hold", missed, nil).OK()
		c.Act("return", missed, nil).OK()
		c.Next(room).OK()
		c.Act("noShow", missed, nil).OK()
		c.Act("cancel", gone, nodetest.Object{"reason": "Asked to"}).OK()
		wanted := map[string]bool{
			"bookingUnassigned": true, "bookingAssigned": true, "bookingCalled": true, "bookingStarted": true, "bookingEnded": true,
			"bookingHeld": true, "bookingReturned": true, "bookingNoShow": true, "providerCanceled": true,
		}
		require.Eventually(t, func() bool {
			for _, a := range r.Arrivals() {
				delete(wanted, a.Trigger())
			}
			return len(wanted) == 0
		}, nodetest.Patience, 10*time.Millisecond)
		for _, a := range r.Arrivals() {
			contract.Check(t, a.Trigger(), a.Raw, bodyOfWebhook(a.Trigger())...)
			for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature", "x-icos-signature"} {
				assert.NotEmpty(t, a.Header.Get(name), a.Trigger())
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
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		doc := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/asyncapi.json"}).OK()
		contract := nodetest.NewContract(t, doc.Raw)
		assert.Equal(t, "/connection/websocket", doc.Str("servers.service.pathname"))
		assert.NotEmpty(t, doc.List("x-close-codes"))
		assert.NotEmpty(t, doc.List("x-errors"))
		seen := map[string]bool{}
		check := func(kind string, sent any) {
			t.Helper()
			name := fmt.Sprintf("%s-%v", kind, nodetest.At(sent, "type"))
			require.NotNil(t, nodetest.At1(doc.Members("channels." + kind)["messages"], name), name)
			raw, err := json.Marshal(sent)
			require.NoError(t, err)
			contract.Check(t, name, raw, "components", "messages", name, "payload")
			seen[name] = true
		}

		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nodetest.Object{"name": "Room 1"}, kind)
		screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK()
		published := map[string]<-chan any{}
		watch := func(token, kind, id string) {
			t.Helper()
			snapshot, publications, err := h.Watch(token, kind+":"+id)
			require.NoError(t, err)
			check(kind, snapshot)
			published[kind+" "+id] = publications
		}
		// next takes what is published up to a type.
		next := func(kind, id string, types ...string) {
			t.Helper()
			for _, wanted := range types {
				deadline := time.After(nodetest.Patience)
				for got := ""; got != wanted; {
					select {
					case p := <-published[kind+" "+id]:
						check(kind, p)
						got, _ = nodetest.At(p, "type").(string)
					case <-deadline:
						t.Fatalf("%s was not published", wanted)
					}
				}
			}
		}
		called, waiting := c.Join(kind, nodetest.Object{"note": "Aches"}), c.Join(kind, nil)
		id := called.Str("id")
		watch(called.Str("ticketToken"), "booking", id)
		watch(c.Key, "booking", waiting.Str("id"))
		watch(c.Key, "queue", room)
		watch(screen.Str("result.token"), "display", screen.Str("result.id"))
		c.Next(room).OK()
		next("booking", id, "MY_BOOKING_ASSIGNED")
		next("booking", waiting.Str("id"), "QUEUE_POSITION_UPDATED")
		next("queue", room, "QUEUE_UPDATED")
		next("display", screen.Str("result.id"), "NOW_SERVING", "DISPLAY_UPDATED")
		h.Exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), id)
		c.Act("recall", id, nil).OK()
		next("booking", id, "MY_BOOKING_CALLED")
		c.Act("start", id, nil).OK()
		next("booking", id, "BOOKING_UPDATED")
		c.Act("end", id, nil).OK()
		next("booking", id, "MY_BOOKING_ENDED")
		next("queue", room, "NEW_PENDING_UNASSIGNED_BOOKING")
		c.Act("cancel", waiting.Str("id"), nil).OK()
		next("booking", waiting.Str("id"), "MY_BOOKING_CANCELED")
		late := c.Join(kind, nil).Str("id")
		watch(c.Key, "booking", late)
		h.Exec("UPDATE bookings SET assignment_deadline = ? WHERE id = ?", time.Now().UTC().Add(-time.Minute), late)
		next("booking", late, "MY_BOOKING_EXPIRED")
		for name := range doc.Members("components.messages") {
			assert.True(t, seen[name], "%s was not sent", name)
		}
	})
}
