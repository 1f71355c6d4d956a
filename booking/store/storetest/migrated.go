package storetest

import (
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"nowserving/booking/store"
)

// Migrated returns the options of a database whose schema is up to date and
// which is the test's own: the embedded one, or one on the PostgreSQL server of
// Postgres, with the rights that the service has in production. The migrations
// run once for all tests of a process; each test gets a copy of what they made.
func Migrated(t testing.TB, postgres bool) store.Options {
	t.Helper()
	o := store.Options{SQLiteNormalSync: true, Now: time.Now, Log: slog.Default()}
	if postgres {
		o.URL = asService(t, create(t, template(t)))
		return o
	}
	o.DataDir = t.TempDir()
	if err := os.WriteFile(filepath.Join(o.DataDir, sqliteFile), schema(t), 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

// sqliteFile is what the embedded database is called in its folder.
const sqliteFile = "nowserving.db"

var templates struct {
	sync.Mutex
	postgres string // the name of a database
	sqlite   []byte // the bytes of a file
}

// template is the name of a PostgreSQL database that has the schema. It stays
// until its server goes.
func template(t testing.TB) string {
	t.Helper()
	templates.Lock()
	defer templates.Unlock()
	if templates.postgres == "" {
		server, name := server(t), newName()
		administer(t, server.String(), "CREATE DATABASE "+name+" TEMPLATE template0")
		server.Path = "/" + name
		migrate(t, store.Options{URL: server.String(), Now: time.Now, Log: slog.Default()}, asService(t, server.String()))
		templates.postgres = name
	}
	return templates.postgres
}

// schema is the file of an embedded database that has the schema.
func schema(t testing.TB) []byte {
	t.Helper()
	templates.Lock()
	defer templates.Unlock()
	if templates.sqlite == nil {
		dir := t.TempDir()
		migrate(t, store.Options{DataDir: dir, Now: time.Now, Log: slog.Default()}, "")
		file, err := os.ReadFile(filepath.Join(dir, sqliteFile))
		if err != nil {
			t.Fatal(err)
		}
		templates.sqlite = file
	}
	return templates.sqlite
}

// serviceRole is the role of the service on the servers of tests.
const serviceRole = "nowserving_test_service"

// asService is the address of a database for the role of the service. Its
// password is that of the server's own account.
func asService(t testing.TB, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the database's address is not a URL") // the error would show a password
	}
	password, ok := u.User.Password()
	u.User = url.UserPassword(serviceRole, password)
	if !ok {
		u.User = url.User(serviceRole)
	}
	return u.String()
}

// Owner returns the options of a database of Migrated for the owner of its
// schema, who may change it.
func Owner(t testing.TB, o store.Options) store.Options {
	t.Helper()
	u, err := url.Parse(o.URL)
	if err != nil {
		t.Fatal("the database's address is not a URL") // the error would show a password
	}
	u.User = server(t).User
	o.URL = u.String()
	return o
}

// migrate makes the schema, and gives the role of serviceURL, if any, its rights.
func migrate(t testing.TB, o store.Options, serviceURL string) {
	t.Helper()
	s, err := store.Open(t.Context(), o)
	if err == nil {
		_, err = s.Migrate(t.Context())
	}
	if err == nil && serviceURL != "" {
		err = s.GrantService(t.Context(), serviceURL)
	}
	if err != nil {
		t.Fatalf("make the schema: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("close the database with the schema: %v", err)
	}
}
