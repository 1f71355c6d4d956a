package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/loadtest"
)

// All visitors of the demo sign in as the same doctor, with the same code. Elsewhere a phone
// number gets five codes in ten minutes.
func TestTheDoctorOfTheDemoSignsInAnyNumberOfTimes(t *testing.T) {
	t.Setenv("NOWSERVING_ADDR", "127.0.0.1:0")
	demo := nodetest.Start(t, nodetest.Embedded, func(c *node.Config) {
		var err error
		*c, err = demoConfig(c.Data)
		require.NoError(t, err)
		c.BootstrapKey = nodetest.BootstrapKey
	})
	for name, one := range map[string]struct {
		node *nodetest.Node
		code string
		want int
	}{
		"demo":      {demo, demoCode, http.StatusOK},
		"elsewhere": {nodetest.Start(t, nodetest.Embedded), nodetest.FixedCode, http.StatusTooManyRequests},
	} {
		c := one.node.NewClinic()
		nodetest.Hire(c, nodetest.Object{"role": "provider", "phone": loadtest.DoctorPhone}).OK()
		for n := range 8 {
			a := c.Send(c.Asking(loadtest.DoctorPhone, true))
			want := http.StatusOK
			if n >= 5 {
				want = one.want
			}
			require.Equal(t, want, a.Status, "%s: %s", name, a.Raw)
			if a.Status == http.StatusOK {
				c.Send(c.Verifying(loadtest.DoctorPhone, one.code, true)).OK()
			}
		}
	}
}
