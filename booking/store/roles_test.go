package store_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
)

// The service's role can add lines to the audit and erase texts, and nothing else.
func TestTheServiceCannotAlterTheAudit(t *testing.T) {
	t.Parallel()
	o := storetest.Migrated(t, true)
	s, owner := open(t, o), open(t, storetest.Owner(t, o))
	record(t, s, 3, "clinic")
	for _, sql := range []string{
		"ALTER TABLE audit DISABLE TRIGGER USER", "DROP TRIGGER audit_kept ON audit", "DROP TABLE audit", "TRUNCATE audit",
		"DELETE FROM audit", "UPDATE audit SET actor_id = 'x'", "UPDATE audit SET hash = ''", "UPDATE audit SET seq = 0",
		"UPDATE audit_chains SET lines = 2", "DELETE FROM audit_chains", "INSERT INTO audit_chains (organization_id) VALUES ('x')",
		"SET session_replication_role = replica", "CREATE TABLE public.x (a int)", "CREATE OR REPLACE FUNCTION audit_drop(text) RETURNS void LANGUAGE sql AS ''",
		"ALTER FUNCTION audit_append_only() OWNER TO CURRENT_USER", "DELETE FROM goose_db_version", "CREATE RULE x AS ON INSERT TO audit DO INSTEAD NOTHING",
	} {
		err := s.Tx(t.Context(), func(tx *store.Tx) error { return tx.Exec(sql).Error })
		pg := &pgconn.PgError{}
		if assert.ErrorAs(t, err, &pg, sql) {
			assert.Equal(t, "42501", pg.Code, "%s: insufficient privilege, not %s", sql, pg.Message)
		}
	}
	// A table of the caller's own does not stand in for one of the schema.
	exec(t, owner, "INSERT INTO organizations (id, name, timezone, created_at) VALUES ('clinic', 'Clinic', 'UTC', now())")
	err := s.Tx(t.Context(), func(tx *store.Tx) error {
		if err := tx.Exec("CREATE TEMPORARY TABLE organizations (id text)").Error; err != nil {
			return err
		}
		return tx.Exec("SELECT audit_drop('clinic')").Error
	})
	require.ErrorContains(t, err, "audit_append_only")
	assert.Empty(t, verify(t, s, "clinic", nil).Faults)
	assert.EqualValues(t, 3, verify(t, s, "clinic", nil).Lines)

	// Deleting the organization and making it again shows.
	require.NoError(t, s.Tx(t.Context(), func(tx *store.Tx) error { return tx.DropOrganization("clinic") }))
	assert.Contains(t, verify(t, s, "clinic", nil).Faults[0], "the account's audit has no line dropOrganization")
	exec(t, s, "INSERT INTO organizations (id, name, timezone, created_at) VALUES ('clinic', 'Clinic', 'UTC', now())")
	assert.Contains(t, verify(t, s, "clinic", nil).Faults[0], "lines 1 to 3 were deleted, but the organization exists")
}

func TestPrepareNeedsAnUpToDateSchemaOrItsOwner(t *testing.T) {
	t.Parallel()
	ownerURL := storetest.Postgres(t)
	owner := open(t, store.Options{URL: ownerURL, Now: time.Now})
	u, err := url.Parse(ownerURL)
	require.NoError(t, err)
	other, err := url.Parse(storetest.Migrated(t, true).URL)
	require.NoError(t, err)
	u.User = other.User // a role that exists, and has no rights here
	service := open(t, store.Options{URL: u.String(), Now: time.Now})
	_, err = service.Prepare(t.Context())
	require.ErrorIs(t, err, store.ErrSchemaBehind, "an empty database")

	owns, err := owner.Prepare(t.Context())
	require.NoError(t, err)
	assert.True(t, owns)
	for range 2 {
		require.NoError(t, owner.GrantService(t.Context(), u.String()))
	}
	owns, err = service.Prepare(t.Context())
	require.NoError(t, err)
	assert.False(t, owns)

	exec(t, owner, "DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)")
	_, err = service.Prepare(t.Context())
	require.ErrorIs(t, err, store.ErrSchemaBehind, "an older schema")
	require.ErrorContains(t, owner.GrantService(t.Context(), ownerURL), "needs another role than the schema's owner")
}
