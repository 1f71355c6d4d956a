package storetest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// adminURL names the variable with the address of a PostgreSQL server on which
// tests may create databases.
const adminURL = "NOWSERVING_TEST_DATABASE_URL"

// adminTimeout bounds creating or dropping one database on a busy machine.
const adminTimeout = time.Minute

// Postgres creates an empty database and returns its address. The database is
// dropped, with whatever is still connected to it, when the test ends.
func Postgres(t testing.TB) string {
	t.Helper()
	server := os.Getenv(adminURL)
	if server == "" {
		t.Fatalf("%s is not set: run `make test`, which starts a PostgreSQL for the tests", adminURL)
	}
	address, err := url.Parse(server)
	if err != nil {
		// The error would show the password in the address.
		t.Fatalf("%s is not a postgres:// URL", adminURL)
	}
	name := "nowserving_" + strings.ToLower(rand.Text())
	// template0, because creating from template1 fails while anyone is connected to it.
	administer(t, server, "CREATE DATABASE "+name+" TEMPLATE template0")
	t.Cleanup(func() { administer(t, server, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	address.Path = "/" + name
	return address.String()
}

// administer runs one statement on a connection of its own. It also runs while
// the test is cleaned up, so it does not heed the end of the test's context.
func administer(t testing.TB, server, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), adminTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatalf("connect to the PostgreSQL of %s: %v", adminURL, err)
	}
	defer func() {
		if err := conn.Close(ctx); err != nil {
			t.Errorf("close the connection to PostgreSQL: %v", err)
		}
	}()
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
