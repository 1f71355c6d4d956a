package access

import (
	"context"
	"fmt"
	"time"

	"nowserving/booking/store"
	"nowserving/models"
)

// setupLife is how long the one-time link works.
const setupLife = 24 * time.Hour

// OpenSetup returns the token of a one-time link with which the operator makes
// the first account key, or "" if an account key exists already. The link works
// on this node only. It ends with its first use, with the first account key,
// after a day, and with the process.
func (a *Access) OpenSetup(ctx context.Context) (string, error) {
	if a.bootstrap != "" {
		return "", nil
	}
	exists, opened := false, time.Time{}
	err := a.store.Tx(ctx, func(tx *store.Tx) (err error) {
		opened = tx.Now
		exists, err = accountKeyExists(tx)
		return err
	})
	if err != nil || exists {
		return "", err
	}
	token := NewToken()
	a.setupMu.Lock()
	defer a.setupMu.Unlock()
	a.setup, a.opened = models.HashSecret(token), opened
	return token, nil
}

// accountKeyExists reports whether there is an account key that has not expired.
func accountKeyExists(tx *store.Tx) (bool, error) {
	var n int64
	err := owned(tx.Model(&APIKey{}), nil).Where("expires_at IS NULL OR expires_at > ?", tx.Now).Count(&n).Error
	if err != nil {
		return false, fmt.Errorf("look for an account key: %w", err)
	}
	return n > 0, nil
}

// Setup makes the first account key with the token of the one-time link.
func (a *Access) Setup(ctx context.Context, token string) (APIKey, string, error) {
	a.setupMu.Lock()
	defer a.setupMu.Unlock()
	ended := models.Errorf(models.CodeUnauthenticated,
		"This link has ended. If there is no account key, restart the service for a new link, or run nowserving keys create.")
	if a.setup == "" || !constantEqual(a.setup, models.HashSecret(token)) {
		return APIKey{}, "", ended
	}
	var k APIKey
	var secret string
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		exists, err := accountKeyExists(tx)
		if err != nil {
			return err
		}
		// A key that was made since and is gone again ended the link as well.
		var made int64
		err = tx.Model(&store.Audit{}).Where("organization_id = '' AND action = 'createKey' AND created_at >= ?", a.opened).Count(&made).Error
		if err != nil {
			return fmt.Errorf("look for the first account key: %w", err)
		}
		if exists || made > 0 || tx.Now.After(a.opened.Add(setupLife)) {
			return ended
		}
		k, secret, err = a.createKey(tx, nil, KeyPlan{Name: "first", Scopes: []Scope{ScopeAdmin}})
		return err
	})
	if store.IsDuplicate(err) { // another node made it at the same moment
		err = ended
	}
	if err == nil || models.CodeOf(err) == models.CodeUnauthenticated {
		a.setup = ""
	}
	return k, secret, err
}
