package handlers_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The fields that a clinic makes up come back as they were sent, numbers that no
// float64 can hold included.
func TestFieldsComeBackAsTheyWereSent(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, nil)
		c.hook("bookingUnassigned", r.url, nil)
		const sent = `{"nationalId":1234567890123456789,"nested":{"list":[9007199254740993,0.10]}}`
		fields := json.RawMessage(sent)
		same := func(a answer, field string) {
			var exact any
			decoder := json.NewDecoder(bytes.NewReader(a.raw))
			decoder.UseNumber()
			assert.NoError(t, decoder.Decode(&exact))
			body, err := json.Marshal(at(exact, field))
			assert.NoError(t, err)
			assert.JSONEq(t, sent, string(body), field)
			assert.Contains(t, string(body), "1234567890123456789")
			assert.Contains(t, string(body), "9007199254740993")
			assert.Contains(t, string(body), "0.10")
		}
		kind := c.serve(c.newType(nil))
		joined := c.join(kind, object{"bookingInfoCustomFields": fields})
		same(joined, "info")
		same(c.send(request{method: http.MethodGet, path: "/management/bookings/" + joined.str("id"), token: c.key}).ok(), "result.info")
		assert.Contains(t, string(r.await(1)[0].raw), "1234567890123456789")

		token := c.patient("+966500000219")
		same(h.send(request{method: http.MethodPut, path: "/customer/profile", token: token, body: object{"data": fields}}).ok(), "result.data")
		same(h.send(request{method: http.MethodGet, path: "/customer/profile", token: token}).ok(), "result.data")
		h.send(request{method: http.MethodPut, path: "/management/organizations/" + c.id, token: bootstrapKey, body: object{"businessCustomConfig": fields}}).ok()
		same(h.send(request{method: http.MethodGet, path: "/management/organizations/" + c.id, token: bootstrapKey}).ok(), "result.businessCustomConfig")
		room := c.newResource(object{"meta": fields}, kind)
		same(c.send(request{method: http.MethodGet, path: "/management/resources/" + room, token: c.key}).ok(), "result.meta")
	})
}
