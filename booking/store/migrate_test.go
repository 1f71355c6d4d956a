package store_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMigrationsGoDownAndUpAgain takes the whole schema back and makes it anew.
func TestMigrationsGoDownAndUpAgain(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]func(*testing.T) store.Options{
		"embedded": func(t *testing.T) store.Options { return store.Options{DataDir: t.TempDir()} },
		"postgres": func(t *testing.T) store.Options { return store.Options{URL: storetest.Postgres(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			o.Now, o.Log = time.Now, slog.New(slog.DiscardHandler)
			s, err := store.Open(t.Context(), o)
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, s.Close()) })
			versions, err := s.Migrate(t.Context())
			require.NoError(t, err)
			// Rows that an older schema would not take must not be in the way.
			now := time.Now().UTC()
			require.NoError(t, s.Tx(t.Context(), func(tx *store.Tx) error {
				clinic := &models.Organization{
					ID: "clinic", Name: "Clinic", Timezone: "UTC", ClinicAddresses: []string{}, GuestJoin: models.GuestsOff, CreatedAt: now,
				}
				if err := tx.Create(clinic).Error; err != nil {
					return err
				}
				phone := "+966500000001"
				return tx.Create(&models.Member{ID: "screen", OrganizationID: "clinic", Role: models.RoleScreen, Phone: &phone, CreatedAt: now}).Error
			}))
			require.Error(t, s.Tx(t.Context(), func(tx *store.Tx) error {
				return tx.Exec("UPDATE members SET role = 'king'").Error
			}), "a role that is none")
			require.NoError(t, s.Unmigrate(t.Context()))
			again, err := s.Migrate(t.Context())
			require.NoError(t, err)
			assert.Equal(t, versions, again)
		})
	}
}
