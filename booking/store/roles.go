package store

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrSchemaBehind is returned by Prepare when migrations are missing and the role
// of the connection may not apply them.
var ErrSchemaBehind = errors.New("the schema of the database is not up to date, and the role of DATABASE_URL may not change it; " +
	"run `nowserving migrate up` with NOWSERVING_MIGRATE_URL")

// Prepare makes sure that the schema is up to date: it migrates when the role of
// the connection owns the schema, and returns ErrSchemaBehind when migrations are
// missing and it does not. On PostgreSQL, owner reports whether the role owns the
// schema; such a role can also alter the audit.
func (s *Store) Prepare(ctx context.Context) (owner bool, err error) {
	if !s.Postgres() {
		_, err := s.Migrate(ctx)
		return false, err
	}
	var began bool
	err = s.pool.QueryRow(ctx, `SELECT to_regclass('goose_db_version') IS NOT NULL, COALESCE(
		(SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('goose_db_version')),
		has_schema_privilege(current_schema(), 'CREATE'), false)`).Scan(&began, &owner)
	if err != nil {
		return false, fmt.Errorf("read the owner of the schema: %w", err)
	}
	if owner {
		_, err := s.Migrate(ctx)
		return true, err
	}
	s.restricted = true
	if !began {
		return false, ErrSchemaBehind
	}
	p, err := s.provider()
	if err != nil {
		return false, err
	}
	pending, err := p.HasPending(ctx)
	if err != nil {
		return false, fmt.Errorf("read the schema's version: %w", err)
	}
	if pending {
		return false, ErrSchemaBehind
	}
	return false, nil
}

// The rights on tables that differ from SELECT, INSERT, UPDATE and DELETE. The
// lines of the audit can only be added to, and emptied as an erasure does.
var rights = map[string][]string{
	"audit":            {"SELECT", "INSERT", "UPDATE (address, address_salt, reason, reason_salt)"},
	"audit_chains":     {"SELECT"},
	"goose_db_version": {"SELECT"},
	"river_migration":  {"SELECT"},
}

// GrantService gives the role of a database URL the rights that the service
// needs, and no others on the tables of the schema. The store's role has to own
// the schema. A role that does not exist is created with the URL's password. It
// can be repeated.
func (s *Store) GrantService(ctx context.Context, serviceURL string) error {
	config, err := pgx.ParseConfig(serviceURL)
	if err != nil {
		return errors.New("DATABASE_URL can't be read as the address of a PostgreSQL database") // err may show a password
	}
	role := pgx.Identifier{config.User}.Sanitize()
	var exists, owns bool
	err = s.pool.QueryRow(ctx, `SELECT count(*) > 0, COALESCE(bool_or(rolsuper OR oid = current_user::regrole
		OR EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND pg_has_role(r.oid, relowner, 'USAGE'))), false)
		FROM pg_roles r WHERE rolname = $1`, config.User).Scan(&exists, &owns)
	if err != nil {
		return fmt.Errorf("look for the role of DATABASE_URL: %w", err)
	}
	if owns {
		return fmt.Errorf("the role %s of DATABASE_URL owns tables or is a superuser; the service needs another role than the schema's owner", role)
	}
	if !exists {
		if err := s.createRole(ctx, role, config.Password); err != nil {
			return fmt.Errorf("create the role %s of DATABASE_URL: %w", role, err)
		}
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Grants on one table by two transactions at once would fail.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('nowserving grants'))"); err != nil {
			return err
		}
		statements, err := grants(ctx, tx, role)
		if err != nil {
			return err
		}
		for _, sql := range statements {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("grant the service its rights: %w", err)
	}
	return nil
}

// grants lists the statements that give a role its rights on the tables, views
// and sequences of the schema that the current role owns.
func grants(ctx context.Context, tx pgx.Tx, role string) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT c.relname, n.nspname, c.relkind = 'S' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'S') AND pg_has_role(c.relowner, 'USAGE') ORDER BY c.relname`)
	if err != nil {
		return nil, err
	}
	var statements []string
	var name, schema string
	var sequence bool
	_, err = pgx.ForEachRow(rows, []any{&name, &schema, &sequence}, func() error {
		full := pgx.Identifier{schema, name}.Sanitize()
		if sequence {
			statements = append(statements, "GRANT USAGE, SELECT ON SEQUENCE "+full+" TO "+role)
			return nil
		}
		allowed, ok := rights[name]
		if !ok {
			allowed = []string{"SELECT", "INSERT", "UPDATE", "DELETE"}
		}
		statements = append(statements, "REVOKE ALL ON "+full+" FROM "+role)
		for _, right := range allowed {
			statements = append(statements, "GRANT "+right+" ON "+full+" TO "+role)
		}
		return nil
	})
	for _, function := range []string{"audit_chain_end(text)", "audit_drop(text)"} {
		statements = append(statements, "REVOKE ALL ON FUNCTION "+function+" FROM PUBLIC", "GRANT EXECUTE ON FUNCTION "+function+" TO "+role)
	}
	return append(statements, "GRANT USAGE ON SCHEMA "+pgx.Identifier{schema}.Sanitize()+" TO "+role), err
}

// createRole creates a role that may log in. The password is sent as a verifier,
// so that it is in no log of the server.
func (s *Store) createRole(ctx context.Context, role, password string) error {
	sql := "CREATE ROLE " + role + " LOGIN"
	if password != "" {
		verifier, err := scramVerifier(password)
		if err != nil {
			return err
		}
		sql += " PASSWORD '" + verifier + "'"
	}
	_, err := s.pool.Exec(ctx, sql)
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if ok && (pg.Code == "42710" || pg.Code == "23505") {
		return nil // another process was faster
	}
	if ok && pg.Code == "42501" {
		return fmt.Errorf("the owner of the schema may not create roles: run CREATE ROLE %s LOGIN PASSWORD '…' as a superuser, with the password in DATABASE_URL, and migrate again: %w", role, err)
	}
	return err
}

// scramVerifier is what PostgreSQL keeps of a password (RFC 5803), for passwords
// of ASCII characters.
func scramVerifier(password string) (string, error) {
	for _, c := range []byte(password) {
		if c < ' ' || c > '~' {
			return "", errors.New("the password has characters other than printable ASCII; create the role yourself")
		}
	}
	const iterations = 4096 // PostgreSQL's own default
	salt := make([]byte, 16)
	rand.Read(salt)
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", err
	}
	key := func(name string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(name))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(key("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(key("Server Key"))), nil
}
