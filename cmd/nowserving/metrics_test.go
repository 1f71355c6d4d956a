package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// metric reads one figure of GET /metrics, named with its labels.
func metric(h *nodetest.Node, name string) float64 {
	h.T.Helper()
	page := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/metrics", Token: nodetest.BootstrapKey}).OK()
	for line := range strings.Lines(string(page.Raw)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			figure, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(h.T, err)
			return figure
		}
	}
	require.Fail(h.T, "no metric "+name)
	return 0
}

// A rate counts the first event only if the metric was there before it.
func TestMetricsOfNotificationsAreThereBeforeTheFirstEvent(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		for _, channel := range []string{"webhook", "push", "message"} {
			for _, result := range []string{"sent", "failed", "retried", "dropped"} {
				require.Zero(t, metric(h, `nowserving_notifications_total{channel="`+channel+`",result="`+result+`"}`), "%s %s", channel, result)
			}
		}
		for _, queue := range []string{"announce", "webhooks", "pushes", "messages"} {
			require.Zero(t, metric(h, `nowserving_notifications_oldest_due_seconds{queue="`+queue+`"}`), queue)
		}
		for _, name := range []string{"position_sweeps", "positions_told", "reminders_dropped"} {
			require.Zero(t, metric(h, "nowserving_"+name+"_total"), name)
		}
	})
}
