package handlers_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
)

// The fields that a clinic makes up come back as they were sent, numbers that no
// float64 can hold included.
func TestFieldsComeBackAsTheyWereSent(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nil)
		c.Hook("bookingUnassigned", r.URL, nil)
		const sent = `{"nationalId":1234567890123456789,"nested":{"list":[9007199254740993,0.10]}}`
		fields := json.RawMessage(sent)
		same := func(a nodetest.Response, field string) {
			var exact any
			decoder := json.NewDecoder(bytes.NewReader(a.Raw))
			decoder.UseNumber()
			assert.NoError(t, decoder.Decode(&exact))
			body, err := json.Marshal(nodetest.At(exact, field))
			assert.NoError(t, err)
			assert.JSONEq(t, sent, string(body), field)
			assert.Contains(t, string(body), "1234567890123456789")
			assert.Contains(t, string(body), "9007199254740993")
			assert.Contains(t, string(body), "0.10")
		}
		kind := c.Serve(c.NewType(nil))
		joined := c.Join(kind, nodetest.Object{"bookingInfoCustomFields": fields})
		same(joined, "info")
		same(c.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/bookings/" + joined.Str("id"), Token: c.Key}).OK(), "result.info")
		assert.Contains(t, string(r.Await(1)[0].Raw), "1234567890123456789")

		token := c.Patient("+966500000219")
		same(h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/profile", Token: token, Body: nodetest.Object{"data": fields}}).OK(), "result.data")
		same(h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/profile", Token: token}).OK(), "result.data")
		h.Send(nodetest.Request{Method: http.MethodPut, Path: "/management/organizations/" + c.ID, Token: nodetest.BootstrapKey, Body: nodetest.Object{"businessCustomConfig": fields}}).OK()
		same(h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/organizations/" + c.ID, Token: nodetest.BootstrapKey}).OK(), "result.businessCustomConfig")
		room := c.NewResource(nodetest.Object{"meta": fields}, kind)
		same(c.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/resources/" + room, Token: c.Key}).OK(), "result.meta")
	})
}
