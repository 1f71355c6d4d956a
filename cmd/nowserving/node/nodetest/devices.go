package nodetest

import (
	"net/http"
	"time"

	"github.com/stretchr/testify/require"
)

// Device registers a device of the person with an access token.
func (h *Node) Device(access, token, lang string) Response {
	h.T.Helper()
	return h.Send(Request{Method: http.MethodPost, Path: "/devices", Token: access, Body: Object{"token": token, "platform": "android", "lang": lang}})
}

// Quiet waits until nothing is left to be announced, Push or swept.
func (h *Node) Quiet() {
	h.T.Helper()
	require.Eventually(h.T, func() bool {
		return Scalar[int](h, `SELECT (SELECT count(*) FROM river_job WHERE finalized_at IS NULL AND queue IN ('announce', 'pushes'))
			+ (SELECT count(*) FROM position_marks WHERE due_at IS NULL OR due_at < ?)`, time.Now().UTC().Add(5*time.Second)) == 0
	}, Patience, 10*time.Millisecond)
}
