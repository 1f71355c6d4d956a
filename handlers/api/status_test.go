package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

func TestEveryCodeHasOneStatus(t *testing.T) {
	t.Parallel()
	for _, f := range models.Failures {
		assert.NotEmpty(t, http.StatusText(statuses[f.Code]), f.Code)
	}
	listed := 0
	for _, list := range codes {
		listed += len(list)
	}
	assert.Len(t, models.Failures, listed, "a code has two statuses, or is not in the catalogue")
}
