package push_test

import (
	"testing"

	"nowserving/cmd/nowserving/node/nodetest"
)

func TestMain(m *testing.M) { nodetest.Main(m) }
