package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// keyPrefix lets people and scanners recognise an API key.
const keyPrefix = "nsk_"

// maxKeyName bounds the name of a key.
const maxKeyName = 100

// APIKey is what may be shown of an API key after it was made.
type APIKey struct {
	ID   string
	Name string
	// OrganizationID is nil for an account key.
	OrganizationID *string
	CreatedAt      time.Time
}

type apiKey struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID *string
	Name           string
	KeyHash        string
	CreatedAt      time.Time
}

func (apiKey) TableName() string { return "api_keys" }

// CreateKey makes an API key of an organization, or of the account when
// organizationID is nil. The key is returned once and kept as a hash.
func (a *Access) CreateKey(ctx context.Context, organizationID *string, name string) (APIKey, string, error) {
	if name == "" || len(name) > maxKeyName {
		return APIKey{}, "", models.Invalid("name", "A key needs a name of at most %d bytes.", maxKeyName)
	}
	secret := keyPrefix + NewToken()
	k := apiKey{ID: models.NewID(), OrganizationID: organizationID, Name: name, KeyHash: models.HashSecret(secret)}
	err := a.store.Tx(ctx, func(tx *store.Tx) error {
		k.CreatedAt = tx.Now
		return tx.Create(&k).Error
	})
	if store.IsDuplicate(err) {
		return APIKey{}, "", models.Errorf(models.CodeKeyTaken, "There is a key named %q already.", name)
	}
	if err != nil {
		return APIKey{}, "", fmt.Errorf("create API key: %w", err)
	}
	return APIKey{k.ID, k.Name, k.OrganizationID, k.CreatedAt}, secret, nil
}

func owned(q *gorm.DB, organizationID *string) *gorm.DB {
	if organizationID == nil {
		return q.Where("organization_id IS NULL")
	}
	return q.Where("organization_id = ?", *organizationID)
}

// maxKeys bounds a list of keys.
const maxKeys = 1000

// Keys lists the API keys of an organization, or of the account.
func (a *Access) Keys(ctx context.Context, organizationID *string) ([]APIKey, error) {
	var rows []apiKey
	if err := owned(a.store.Read(ctx), organizationID).Order("name").Limit(maxKeys).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list API keys: %w", err)
	}
	list := make([]APIKey, len(rows))
	for i, k := range rows {
		list[i] = APIKey{k.ID, k.Name, k.OrganizationID, k.CreatedAt}
	}
	return list, nil
}

// DeleteKey deletes a key by its name; it is refused from then on.
func (a *Access) DeleteKey(ctx context.Context, organizationID *string, name string) error {
	return a.store.Tx(ctx, func(tx *store.Tx) error {
		var k apiKey
		err := owned(tx.Where("name = ?", name), organizationID).Take(&k).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			return models.Errorf(models.CodeKeyMissing, "There is no key named %q.", name)
		}
		if err == nil {
			err = tx.Delete(&k).Error
		}
		if err != nil {
			return fmt.Errorf("delete API key: %w", err)
		}
		return tx.Revoke(store.RevokedKey, k.ID)
	})
}
