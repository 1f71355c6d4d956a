package main

import (
	"bufio"
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// metric reads one figure of GET /metrics, named with its labels; -1 when it is
// not there.
func (c *client) metric(name string) float64 {
	c.t.Helper()
	status, page, err := c.try(http.MethodGet, "/metrics", nil)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusOK, status)
	lines := bufio.NewScanner(bytes.NewReader(page))
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), name+" "); found {
			figure, err := strconv.ParseFloat(value, 64)
			require.NoError(c.t, err)
			return figure
		}
	}
	return -1
}

// Every outcome is shown before it happens, so that a rate counts the first.
func TestMetricsOfNotifications(t *testing.T) {
	t.Parallel()
	for _, be := range backends {
		t.Run(be.name, func(t *testing.T) {
			t.Parallel()
			c := start(t, be.settings(t))
			for _, channel := range []string{"webhook", "push", "message"} {
				for _, result := range []string{"sent", "failed", "retried", "dropped"} {
					require.Zero(t, c.metric(`nowserving_notifications_total{channel="`+channel+`",result="`+result+`"}`), "%s %s", channel, result)
				}
			}
			for _, queue := range []string{"announce", "webhooks", "pushes", "messages"} {
				require.Zero(t, c.metric(`nowserving_notifications_oldest_due_seconds{queue="`+queue+`"}`), queue)
			}
			require.Zero(t, c.metric("nowserving_position_sweeps_total"))
			require.Zero(t, c.metric("nowserving_positions_told_total"))
			require.Zero(t, c.metric("nowserving_reminders_dropped_total"))
		})
	}
}
