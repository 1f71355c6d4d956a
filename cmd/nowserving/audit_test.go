package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
)

// TestAuditVerify reads the report as an operator does.
func TestAuditVerify(t *testing.T) {
	t.Parallel()
	o := storetest.Migrated(t, false)
	o.Log = slog.New(slog.DiscardHandler)
	s, err := store.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	write := func(sql string) {
		require.NoError(t, s.Tx(t.Context(), func(tx *store.Tx) error {
			if sql != "" {
				return tx.Exec(sql).Error
			}
			for _, id := range []string{"", "clinic", "clinic"} {
				if err := tx.Audit(id, "createKey", "key", "k1"); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	verify := func(only string, kept map[string]store.AuditHead) (string, error) {
		var out strings.Builder
		err := auditVerify(t.Context(), &out, s, only, kept)
		return out.String(), err
	}
	write("")
	report, err := verify("", nil)
	require.NoError(t, err)
	assert.Regexp(t, `^ok       account: 1 lines, head [0-9a-f]{64}\nok       clinic: 2 lines, head [0-9a-f]{64}\n$`, report)
	report, err = verify(account, nil)
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(report, "\n"))
	write("INSERT INTO organizations (id, name, timezone, short_name, created_at) VALUES ('clinic', 'Al Noor', 'Asia/Riyadh', 'al-noor', CURRENT_TIMESTAMP)")
	report, err = verify("Al-Noor", nil)
	require.NoError(t, err)
	assert.Contains(t, report, "clinic: 2 lines")
	_, err = verify("elsewhere", nil)
	require.ErrorContains(t, err, `no audit of an organization "elsewhere"`)

	chains, err := s.AuditChains(t.Context())
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "heads")
	var text strings.Builder
	require.NoError(t, printHeads(&text, chains))
	require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o600))
	kept, err := readHeads(file)
	require.NoError(t, err)
	require.Len(t, kept, 2)
	write("")
	_, err = verify("", kept)
	require.NoError(t, err)
	kept["gone"] = store.AuditHead{Seq: 3}
	report, err = verify("gone", kept)
	require.ErrorIs(t, err, errAuditDamaged)
	assert.Contains(t, report, "DAMAGED  gone: 0 lines\n")

	write("DROP TRIGGER audit_kept")
	write("DELETE FROM audit WHERE organization_id = 'clinic' AND seq = 2")
	report, err = verify("", nil)
	require.ErrorIs(t, err, errAuditDamaged)
	assert.Regexp(t, `(?m)^DAMAGED  clinic: 4 lines, head .*\n         id \d+: missing before this line: line 2$`, report)
}
