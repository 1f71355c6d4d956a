package store_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/models"
)

// onBoth runs a test with an empty database of each kind. owner may change the
// schema; on SQLite it is the same store.
func onBoth(t *testing.T, test func(t *testing.T, s, owner *store.Store)) {
	t.Helper()
	for name, postgres := range map[string]bool{"embedded": false, "postgres": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := storetest.Migrated(t, postgres)
			s := open(t, o)
			owner := s
			if postgres {
				owner = open(t, storetest.Owner(t, o))
			}
			test(t, s, owner)
		})
	}
}

func open(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	s, err := store.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

// record writes n lines for each organization, in one transaction.
func record(t *testing.T, s *store.Store, n int, organizations ...string) {
	t.Helper()
	ctx := store.WithOrigin(t.Context(), store.Origin{Kind: "member", ID: "amal", Address: "192.0.2.7", Reason: "Asked to"})
	require.NoError(t, s.Tx(ctx, func(tx *store.Tx) error {
		for i := range n {
			for _, id := range organizations {
				if err := tx.Audit(id, "cancel", "booking", fmt.Sprint("b", i)); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

func verify(t *testing.T, s *store.Store, id string, kept *store.AuditHead) store.AuditReport {
	t.Helper()
	report, err := s.VerifyAudit(t.Context(), id, kept)
	require.NoError(t, err)
	return report
}

// allow switches off what keeps the audit append-only, as the owner of the
// schema can.
func allow(t *testing.T, s *store.Store) {
	t.Helper()
	statements := []string{"ALTER TABLE audit DISABLE TRIGGER USER"}
	if !s.Postgres() {
		statements = []string{
			"DROP TRIGGER audit_kept", "DROP TRIGGER audit_unchanged", "DROP TRIGGER audit_replaced", "DROP TRIGGER audit_appended",
		}
	}
	exec(t, s, statements...)
}

func exec(t *testing.T, s *store.Store, statements ...string) {
	t.Helper()
	require.NoError(t, s.Tx(t.Context(), func(tx *store.Tx) error {
		for _, sql := range statements {
			if err := tx.Exec(sql).Error; err != nil {
				return err
			}
		}
		return nil
	}))
}

func TestVerifyAuditFindsWhatWasDoneOutsideTheChain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s, owner *store.Store) {
		const copied = `INSERT INTO audit (organization_id, action, subject_kind, subject_id, actor_kind, actor_id, actor_role, address, request_id, reason, created_at,
			seq, hash, address_salt, address_digest, reason_salt, reason_digest)
			SELECT organization_id, 'assign', subject_kind, subject_id, actor_kind, actor_id, actor_role, address, request_id, reason, created_at,
			%s, hash, address_salt, address_digest, reason_salt, reason_digest FROM audit WHERE organization_id = '%s' AND seq = 5`
		cases := map[string]struct{ sql, fault string }{
			"changed":     {"UPDATE audit SET actor_id = 'omar' WHERE organization_id = 'changed' AND seq = 3", "line 3 was changed"},
			"time":        {"UPDATE audit SET created_at = '2020-01-01 00:00:00' WHERE organization_id = 'time' AND seq = 3", "line 3 was changed"},
			"reason":      {"UPDATE audit SET reason = 'Another' WHERE organization_id = 'reason' AND seq = 3", "the address or the reason of line 3 was changed"},
			"hidden":      {"UPDATE audit SET address = '' WHERE organization_id = 'hidden' AND seq = 3", "the address or the reason of line 3 was changed"},
			"cut":         {"DELETE FROM audit WHERE organization_id = 'cut' AND seq IN (4, 5)", "missing before this line: lines 4 to 5"},
			"beginning":   {"DELETE FROM audit WHERE organization_id = 'beginning' AND seq = 1", "missing before this line: line 1"},
			"tail":        {"DELETE FROM audit WHERE organization_id = 'tail' AND seq > 7", "missing at the end: lines 8 to 10"},
			"all":         {"DELETE FROM audit WHERE organization_id = 'all'", "missing at the end: lines 1 to 10"},
			"inserted":    {fmt.Sprintf(copied, "6", "inserted"), "a line 6 was added after line 10"},
			"appended":    {fmt.Sprintf(copied, "11", "appended"), "line 11 was changed"},
			"unnumbered":  {fmt.Sprintf(copied, "0", "unnumbered"), "1 lines are older than the chain; there were 0"},
			"end":         {"UPDATE audit_chains SET lines = 9 WHERE organization_id = 'end'", "line 10 is not the end of the chain"},
			"without end": {"DELETE FROM audit_chains WHERE organization_id = 'without end'", "the end of the chain is missing"},
			"moved":       {"UPDATE audit SET organization_id = 'elsewhere' WHERE organization_id = 'moved' AND seq = 10", "missing at the end: line 10"},
			"removed":     {"UPDATE audit_chains SET removed = 2 WHERE organization_id = 'removed'", "has no line dropOrganization"},
		}
		for name := range cases {
			record(t, s, 10, name)
		}
		record(t, s, 1, "", "whole")
		allow(t, owner)
		for name, c := range cases {
			require.Empty(t, verify(t, s, name, nil).Faults, name)
			exec(t, owner, c.sql)
			faults := verify(t, s, name, nil).Faults
			if assert.NotEmpty(t, faults, name) {
				assert.Contains(t, faults[0], c.fault, name)
			}
		}
		for _, id := range []string{"", "whole"} {
			assert.Empty(t, verify(t, s, id, nil).Faults)
		}
		ids, err := s.AuditedOrganizations(t.Context())
		require.NoError(t, err)
		assert.Contains(t, ids, "elsewhere", "an organization that has lines and no chain")
	})
}

func TestAKeptHeadShowsAChainThatWasWrittenAgain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s, owner *store.Store) {
		record(t, s, 1200, "clinic") // more than one read
		report := verify(t, s, "clinic", nil)
		require.Empty(t, report.Faults)
		kept := store.AuditHead{Seq: report.Lines, Hash: report.Hash}
		record(t, s, 5, "clinic")
		assert.Empty(t, verify(t, s, "clinic", &kept).Faults)

		allow(t, owner)
		exec(t, owner, "DELETE FROM audit WHERE organization_id = 'clinic'", "DELETE FROM audit_chains WHERE organization_id = 'clinic'")
		assert.Contains(t, verify(t, s, "clinic", &kept).Faults[1], "missing at the end: lines 1 to 1200, whose hash was kept")
		if s.Postgres() {
			exec(t, owner, "ALTER TABLE audit ENABLE TRIGGER USER")
		} else {
			exec(t, owner, `CREATE TRIGGER audit_appended AFTER INSERT ON audit BEGIN
				UPDATE audit_chains SET lines = NEW.seq, hash = NEW.hash WHERE organization_id = NEW.organization_id; END`)
		}
		record(t, s, 1205, "clinic")
		assert.Empty(t, verify(t, s, "clinic", nil).Faults, "the owner of the schema can write a whole new chain")
		assert.Contains(t, verify(t, s, "clinic", &kept).Faults[0], "line 1200 is not the one whose hash was kept")
	})
}

// An erasure takes the texts and their salts, and leaves the chain whole.
func TestTheChainOutlivesAnErasure(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s, _ *store.Store) {
		ctx := store.WithOrigin(t.Context(), store.Origin{Kind: "customer", ID: "sara", Address: "192.0.2.7", Reason: "A cold"})
		require.NoError(t, s.Tx(ctx, func(tx *store.Tx) error { return tx.Audit("clinic", "join", "booking", "b1") }))
		record(t, s, 1, "clinic")
		require.NoError(t, s.Tx(ctx, func(tx *store.Tx) error {
			if err := tx.Audit("clinic", "eraseCustomer", "customer", "sara"); err != nil {
				return err
			}
			return tx.EraseAudit(&store.DataSubject{OrganizationID: "clinic", CustomerIDs: []string{"sara"}, BookingIDs: []string{"", "b1"}})
		}))
		report := verify(t, s, "clinic", nil)
		assert.Empty(t, report.Faults)
		assert.EqualValues(t, 3, report.Lines)
		var lines []store.Audit
		require.NoError(t, s.Read(t.Context()).Order("id").Find(&lines).Error)
		for i, kept := range []string{"", "192.0.2.7", ""} {
			assert.Equal(t, kept, lines[i].Address)
			assert.Equal(t, kept == "", len(lines[i].AddressSalt) == 0, "the salt goes with the text")
		}
		assert.Empty(t, lines[0].Reason)
		assert.Empty(t, lines[0].ReasonSalt)
		assert.NotEmpty(t, lines[0].ReasonDigest)
	})
}

// Transactions that write to the same chains in different orders neither fork a
// chain nor wait for each other for ever.
func TestChainsAreWrittenConcurrently(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s, _ *store.Store) {
		const writers, rounds = 8, 10
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for i := range rounds {
					organizations := []string{"", "a", "b"}
					if (w+i)%2 == 0 {
						organizations = []string{"b", "a", ""}
					}
					assert.NoError(t, s.Tx(t.Context(), func(tx *store.Tx) error {
						for _, id := range organizations {
							if err := tx.Audit(id, "join", "booking", "b"); err != nil {
								return err
							}
						}
						return nil
					}))
				}
			})
		}
		all.Wait()
		for _, id := range []string{"", "a", "b"} {
			report := verify(t, s, id, nil)
			assert.Empty(t, report.Faults)
			assert.EqualValues(t, writers*rounds, report.Lines)
		}
	})
}

// The format of the hash is part of every database: a change of it would make
// each chain look damaged.
func TestTheHashOfALine(t *testing.T) {
	t.Parallel()
	line := store.Audit{
		OrganizationID: "clinic", Action: "cancel", SubjectKind: "booking", SubjectID: "b1", ActorKind: "member", ActorID: "amal",
		ActorRole: models.RoleOwner, RequestID: "r1", CreatedAt: time.Date(2027, 1, 2, 3, 4, 5, 6000, time.UTC), Seq: 1,
	}
	assert.Equal(t, "2cd8231434a027e4809729ba0a6c29980e173673dd3713a41c61ff1fe03b841e", hex.EncodeToString(store.AuditSum(&line, nil)))
}

// BenchmarkAudit measures a transaction that writes one line, by 8 goroutines.
func BenchmarkAudit(b *testing.B) {
	for name, postgres := range map[string]bool{"embedded": false, "postgres": true} {
		for _, tenants := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%d", name, tenants), func(b *testing.B) {
				o := storetest.Migrated(b, postgres)
				o.Log = slog.New(slog.DiscardHandler)
				s, err := store.Open(b.Context(), o)
				require.NoError(b, err)
				b.Cleanup(func() { assert.NoError(b, s.Close()) })
				work := make(chan int)
				var all sync.WaitGroup
				b.ResetTimer()
				for range 8 {
					all.Go(func() {
						for i := range work {
							assert.NoError(b, s.Tx(context.Background(), func(tx *store.Tx) error {
								return tx.Audit(fmt.Sprint(i%tenants), "join", "booking", "b")
							}))
						}
					})
				}
				for i := range b.N {
					work <- i
				}
				close(work)
				all.Wait()
			})
		}
	}
}
