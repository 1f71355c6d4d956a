package nodetest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Watch subscribes to a channel and returns the snapshot, or the error.
func (h *Node) Watch(token, channel string) (snapshot any, published <-chan any, err error) {
	h.T.Helper()
	client := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket", centrifuge.Config{Token: token})
	h.T.Cleanup(client.Close)
	require.NoError(h.T, client.Connect())
	sub, err := client.NewSubscription(channel)
	require.NoError(h.T, err)
	got, refused, events := make(chan any, 1), make(chan error, 1), make(chan any, 64)
	parse := func(data []byte) any {
		var v any
		assert.NoError(h.T, json.Unmarshal(data, &v))
		return v
	}
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) { got <- parse(e.Data) })
	sub.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) { refused <- errors.New(e.Reason) })
	sub.OnPublication(func(e centrifuge.PublicationEvent) { events <- parse(e.Data) })
	require.NoError(h.T, sub.Subscribe())
	select {
	case snapshot := <-got:
		return snapshot, events, nil
	case err := <-refused:
		return nil, nil, err
	case <-time.After(Patience):
		h.T.Fatal("no answer to a subscription")
		return nil, nil, nil
	}
}

// NextOf waits for a publication of a type.
func NextOf(t *testing.T, published <-chan any, kind string) any {
	t.Helper()
	deadline := time.After(Patience)
	for {
		select {
		case p := <-published:
			if At(p, "type") == kind {
				return p
			}
		case <-deadline:
			t.Fatalf("%s was not published", kind)
		}
	}
}
