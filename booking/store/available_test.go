package store_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"

	"nowserving/booking/store"
)

func TestWhatPassesIsUnavailable(t *testing.T) {
	t.Parallel()
	for _, code := range []string{
		"08006", "25006", "25P03", "25P04", "40001", "40P01", "53100", "53200", "53300", "55P03",
		"57014", "57P01", "57P02", "57P03", "58030",
	} {
		assert.True(t, store.IsUnavailable(fmt.Errorf("write: %w", &pgconn.PgError{Code: code})), code)
	}
	for _, code := range []string{"22P02", "23505", "25P02", "42501", "42703", "42P01", "XX000", ""} {
		assert.False(t, store.IsUnavailable(&pgconn.PgError{Code: code}), code)
	}
	for _, err := range []error{io.EOF, io.ErrUnexpectedEOF, driver.ErrBadConn, context.DeadlineExceeded, &pgconn.ConnectError{}} {
		assert.True(t, store.IsUnavailable(fmt.Errorf("write: %w", err)), "%v", err)
	}
	assert.False(t, store.IsUnavailable(errors.New("a bug")))
	assert.False(t, store.IsUnavailable(nil))
}
