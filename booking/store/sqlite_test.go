package store

import (
	"database/sql/driver"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
)

// TestSQLiteWaitsForTheDisk: a commit that is confirmed is on the disk, also on
// a connection that replaced a broken one.
func TestSQLiteWaitsForTheDisk(t *testing.T) {
	t.Parallel()
	const normal, full = 1, 2
	for _, one := range []struct {
		name string
		sync bool
		want int
	}{{"by default", false, full}, {"unless normal sync is set", true, normal}} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(t.Context(), Options{
				DataDir: t.TempDir(), SQLiteNormalSync: one.sync, Now: time.Now, Log: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			defer func() { assert.NoError(t, s.Close()) }()
			for _, pool := range []*gorm.DB{s.write, s.read} {
				db, err := pool.DB()
				require.NoError(t, err)
				for range 2 { // the second time on a new connection
					conn, err := db.Conn(t.Context())
					require.NoError(t, err)
					var mode string
					var sync int
					require.NoError(t, conn.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&mode))
					require.NoError(t, conn.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&sync))
					assert.Equal(t, "wal", mode)
					assert.Equal(t, one.want, sync)
					require.ErrorIs(t, conn.Raw(func(any) error { return driver.ErrBadConn }), driver.ErrBadConn)
				}
			}
		})
	}
}
