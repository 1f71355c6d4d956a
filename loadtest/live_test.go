package loadtest

import (
	"testing"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/stretchr/testify/require"
)

// untilBack is a subscriber that is done with its second snapshot.
type untilBack struct {
	snapshots int
	losses    int
}

func (u *untilBack) snapshot([]byte, time.Time, time.Time) bool {
	u.snapshots++
	return u.snapshots == 2
}

func (u *untilBack) publication([]byte, time.Time) bool { return false }
func (u *untilBack) dropped(time.Time)                  { u.losses++ }

func TestClientComesBackWhenTheServerFallsSilent(t *testing.T) {
	s := newFake(t)
	s.ping = time.Second
	kind := &fakeType{}
	b := &fakeBooking{id: "b", kind: kind, stage: "WAITING", subscribers: map[*fakeConn]bool{}}
	kind.waiting = []*fakeBooking{b}
	s.bookings["b"] = b

	sockets := newHTTPClient()
	defer sockets.CloseIdleConnections()
	stats := new(liveStats)
	client := &liveClient{
		nodes: []string{s.url}, protocol: protocol.TypeJSON, http: sockets, token: "t",
		channel: "booking:b", slack: 10 * time.Millisecond, stats: stats,
	}
	var seen untilBack
	require.NoError(t, client.run(t.Context(), &seen))
	require.Equal(t, untilBack{snapshots: 2, losses: 1}, seen)
	require.EqualValues(t, 1, stats.opened.Load())
	require.EqualValues(t, 1, stats.reconnects.Load())
	require.Zero(t, stats.now.Load())
	require.EqualValues(t, 1, stats.peak.Load())
}

func TestCloseCodesSayWhetherToComeBack(t *testing.T) {
	for code, final := range map[int]bool{1000: false, 1001: false, 3000: false, 3008: false, 3499: false, 3500: true, 3501: true, 3999: true, 4000: false, 4500: true} {
		var end *terminal
		if final {
			require.ErrorAs(t, closeError(code, ""), &end, "%d", code)
		} else {
			require.NotErrorAs(t, closeError(code, ""), &end, "%d", code)
		}
	}
}
