package nodetest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
)

// Exec changes the database behind the service's back.
func (h *Node) Exec(sql string, args ...any) {
	h.T.Helper()
	require.NoError(h.T, h.Store.Tx(context.Background(), func(tx *store.Tx) error { return tx.Exec(sql, args...).Error }))
}

// Alter changes the schema, as its owner.
func (h *Node) Alter(sql string) {
	h.T.Helper()
	if !h.Store.Postgres() {
		h.Exec(sql)
		return
	}
	owner, err := store.Open(context.Background(), storetest.Owner(h.T, store.Options{URL: h.Config.DatabaseURL, Now: time.Now, Log: slog.Default()}))
	require.NoError(h.T, err)
	defer func() { require.NoError(h.T, owner.Close()) }()
	require.NoError(h.T, owner.Tx(context.Background(), func(tx *store.Tx) error { return tx.Exec(sql).Error }))
}

// Scalar reads one value from the database.
func Scalar[T any](h *Node, sql string, args ...any) T {
	h.T.Helper()
	var value T
	require.NoError(h.T, h.Store.Read(context.Background()).Raw(sql, args...).Row().Scan(&value))
	return value
}

// tables are all that a request could change, but for the count of wrong codes.
var tables = []string{
	"organizations", "members", "customers", "booking_types", "resources", "resource_types", "ticket_counters", "bookings",
	"booking_filter_resources", "events", "displays", "api_keys", "webhooks", "one_time_codes", "sessions", "devices", "files", "file_removals",
}

// Contents is everything in the database, as text, but for the quoted waits and
// the use of keys: they are kept in the background, some time after.
func (h *Node) Contents() string {
	h.T.Helper()
	var all strings.Builder
	for _, table := range tables {
		var rows []map[string]any
		require.NoError(h.T, h.Store.Read(context.Background()).Table(table).Find(&rows).Error)
		lines := make([]string, len(rows))
		for i, row := range rows {
			maps.DeleteFunc(row, func(column string, _ any) bool {
				return strings.HasPrefix(column, "quoted_") || table == "api_keys" && slices.Contains([]string{"requests", "errors", "last_used_at"}, column)
			})
			lines[i] = fmt.Sprint(row) // maps print sorted
		}
		slices.Sort(lines) // rows have no order
		fmt.Fprintf(&all, "%s %d %s\n", table, len(rows), strings.Join(lines, "\n"))
	}
	return all.String()
}
