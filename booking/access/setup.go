package access

import (
	"context"
	"fmt"
	"slices"

	"nowserving/models"
)

// OpenSetup returns the token of a one-time link with which whoever runs the
// service makes the first account key. It returns "" when there is a key
// already: then nothing is open. The token lives as long as the process.
func (a *Access) OpenSetup(ctx context.Context) (string, error) {
	if a.bootstrap != "" {
		return "", nil
	}
	keys, err := a.Keys(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("look for an account key: %w", err)
	}
	if slices.ContainsFunc(keys, func(k APIKey) bool { return k.ExpiresAt == nil || k.ExpiresAt.After(a.o.Now()) }) {
		return "", nil
	}
	token := NewToken()
	a.setupMu.Lock()
	defer a.setupMu.Unlock()
	a.setup = models.HashSecret(token)
	return token, nil
}

// Setup makes the first account key for whoever has the token of the one-time
// link. It works once, whichever node's link is used first.
func (a *Access) Setup(ctx context.Context, token string) (APIKey, string, error) {
	a.setupMu.Lock()
	defer a.setupMu.Unlock()
	refused := models.Errorf(models.CodeUnauthenticated, "This link has been used, or belongs to an earlier start.")
	if a.setup == "" || !constantEqual(a.setup, models.HashSecret(token)) {
		return APIKey{}, "", refused
	}
	key, secret, err := a.CreateKey(ctx, nil, KeyPlan{Name: "first"})
	if models.CodeOf(err) == models.CodeKeyTaken {
		a.setup = ""
		return APIKey{}, "", refused
	}
	if err == nil {
		a.setup = ""
	}
	return key, secret, err
}
