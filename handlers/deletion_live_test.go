package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// TestSubscriptionsEndWhenTheOrganizationIsDeleted deletes one of two organizations.
// An account key keeps its subscriptions to the other.
func TestSubscriptionsEndWhenTheOrganizationIsDeleted(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		far := h // the embedded database belongs to one node
		if h.RedisServer != nil {
			far = h.Beside(nil)
		}
		for _, how := range []string{"", "?hardDelete=true"} {
			stays := h.NewClinic()
			for _, node := range []*nodetest.Node{h, far} {
				c := h.NewClinic()
				client := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(node.URL, "http")+"/connection/websocket", centrifuge.Config{Token: nodetest.BootstrapKey, MaxReconnectDelay: 100 * time.Millisecond})
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
					case <-time.After(nodetest.Patience):
						t.Fatalf("%s is not watched", channel)
					}
					return came, ended
				}
				kind := c.NewType(nil)
				ended := map[string]chan struct{}{}
				for _, channel := range []string{
					"booking:" + c.Join(kind, nil).Str("id"), "queue:" + c.NewResource(nil, kind),
					"display:" + c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK().Str("result.id"),
				} {
					_, ended[channel] = watch(channel)
				}
				queue := "queue:" + stays.NewResource(nil, stays.NewType(nil))
				goesOn, over := watch(queue)

				organization(c, http.MethodDelete, how, nil).OK()
				within := make(chan struct{})
				defer time.AfterFunc(nodetest.Patience, func() { close(within) }).Stop()
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
