package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestNobodyWatchesADeletedOrganization: an account key goes on with the
// organizations that are left.
func TestNobodyWatchesADeletedOrganization(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		far := h // the embedded database belongs to one node
		if h.server != nil {
			far = h.beside(nil)
		}
		for _, how := range []string{"", "?hardDelete=true"} {
			stays := h.newClinic()
			for _, node := range []*house{h, far} {
				c := h.newClinic()
				client := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(node.URL, "http")+"/connection/websocket", centrifuge.Config{Token: bootstrapKey, MaxReconnectDelay: 100 * time.Millisecond})
				t.Cleanup(client.Close)
				require.NoError(t, client.Connect())
				watch := func(channel string) (came, ended chan struct{}) {
					sub, err := client.NewSubscription(channel)
					require.NoError(t, err)
					came, ended = make(chan struct{}, 100), make(chan struct{}, 1)
					sub.OnSubscribed(func(centrifuge.SubscribedEvent) { came <- struct{}{} })
					sub.OnUnsubscribed(func(centrifuge.UnsubscribedEvent) { ended <- struct{}{} })
					require.NoError(t, sub.Subscribe())
					select {
					case <-came:
					case <-time.After(patience):
						t.Fatalf("%s is not watched", channel)
					}
					return came, ended
				}
				kind := c.newType(nil)
				ended := map[string]chan struct{}{}
				for _, channel := range []string{
					"booking:" + c.join(kind, nil).str("id"), "queue:" + c.newResource(nil, kind),
					"display:" + c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok().str("result.id"),
				} {
					_, ended[channel] = watch(channel)
				}
				queue := "queue:" + stays.newResource(nil, stays.newType(nil))
				goesOn, over := watch(queue)

				c.organization(http.MethodDelete, how, nil).ok()
				within := make(chan struct{})
				defer time.AfterFunc(patience, func() { close(within) }).Stop()
				for channel, told := range ended {
					select {
					case <-told:
					case <-within:
						t.Errorf("%s is watched on after %q", channel, how)
					}
				}
				select {
				case <-goesOn:
				case <-within:
					t.Error("the other organization is not watched any more")
				}
				assert.Empty(t, over)
			}
		}
	})
}
