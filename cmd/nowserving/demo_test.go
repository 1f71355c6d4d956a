package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"nowserving/loadtest"
)

// Everybody who tries the demo signs in as the same doctor, with the code that
// all of them know. Elsewhere a phone number gets five codes in ten minutes.
func TestTheDoctorOfTheDemoSignsInAnyNumberOfTimes(t *testing.T) {
	t.Setenv("NOWSERVING_ADDR", "127.0.0.1:0")
	c, err := demoConfig(t.TempDir())
	require.NoError(t, err)
	for name, one := range map[string]struct {
		node *client
		want int
	}{
		"demo":      {startWith(t, c), http.StatusOK},
		"elsewhere": {start(t, backends[0].settings(t)), http.StatusTooManyRequests},
	} {
		node := one.node
		if name == "demo" {
			node.key = c.BootstrapKey
		}
		node.clinic()
		node.call("POST", "/management/members", map[string]any{"role": "provider", "phone": loadtest.DoctorPhone})
		body := map[string]any{"method": "sms", "phoneNumber": loadtest.DoctorPhone, "isOrgMember": true, "code": demoCode}
		for n := range 8 {
			status, answer, err := node.try("POST", "/auth/otp/request", map[string]any{"method": "sms", "phoneNumber": loadtest.DoctorPhone, "isOrgMember": true})
			require.NoError(t, err)
			if n < 5 {
				require.Equal(t, http.StatusOK, status, "%s: %s", name, answer)
			} else {
				require.Equal(t, one.want, status, "%s: %s", name, answer)
			}
			if status == http.StatusOK {
				node.call("POST", "/auth/otp/verify", body)
			}
		}
	}
}
