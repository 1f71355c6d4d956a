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
	// template0, because creating from template1 fails while anyone is connected to it.
	return create(t, "template0")
}

// create makes a database for the test, as a copy of another.
func create(t testing.TB, template string) string {
	t.Helper()
	address, name := server(t), newName()
	admin := address.String()
	administer(t, admin, "CREATE DATABASE "+name+" TEMPLATE "+template)
	t.Cleanup(func() { administer(t, admin, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	address.Path = "/" + name
	return address.String()
}

// server is the address of the server that tests share.
func server(t testing.TB) *url.URL {
	t.Helper()
	text := os.Getenv(adminURL)
	if text == "" {
		t.Fatalf("%s is not set: run `make test`, which starts a PostgreSQL for the tests", adminURL)
	}
	address, err := url.Parse(text)
	if err != nil {
		// The error would show the password in the address.
		t.Fatalf("%s is not a postgres:// URL", adminURL)
	}
	return address
}

// newName is the name of a database to be.
func newName() string { return "nowserving_" + strings.ToLower(rand.Text()) }

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
