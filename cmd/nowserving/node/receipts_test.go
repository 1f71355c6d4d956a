package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Twilio refuses messages that name an address it can't reach.
func TestReceiptsAreAskedForAtPublicAddressesOnly(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"https://queue.clinic.example": true, "https://queue.clinic.example/app": true, "http://203.0.113.5:8080": true,
		"": false, "http://localhost:8080": false, "http://clinic": false, "http://127.0.0.1": false, "http://10.0.0.7": false, "http://192.168.1.2:80": false,
	} {
		require.Equal(t, want, reachable(address), address)
	}
}
