-- Lines of the audit are chained by a hash, one chain for each organization.

-- +goose Up
-- seq is the number of a line in the chain of its organization, from 1; lines
-- written before this migration have 0. hash covers the line and the hash of
-- the line before. The text of address and reason can be erased: hash covers
-- their digests, each keyed by a random salt that is erased with the text.
ALTER TABLE audit
    ADD COLUMN seq            bigint NOT NULL DEFAULT 0,
    ADD COLUMN hash           bytea  NOT NULL DEFAULT '',
    ADD COLUMN address_salt   bytea  NOT NULL DEFAULT '',
    ADD COLUMN address_digest bytea  NOT NULL DEFAULT '',
    ADD COLUMN reason_salt    bytea  NOT NULL DEFAULT '',
    ADD COLUMN reason_digest  bytea  NOT NULL DEFAULT '';

-- The end of each chain. Its row is locked last in a transaction, so it orders
-- the lines without being held for long.
CREATE TABLE audit_chains (
    organization_id text PRIMARY KEY,
    lines           bigint NOT NULL DEFAULT 0,  -- seq of the last line
    hash            bytea  NOT NULL DEFAULT '', -- of the last line
    unchained       bigint NOT NULL DEFAULT 0,  -- how many lines are older than the chain
    removed         bigint NOT NULL DEFAULT 0,  -- lines up to this seq were deleted with the organization
    removed_hash    bytea  NOT NULL DEFAULT ''  -- of the last of those
) WITH (fillfactor = 50);
INSERT INTO audit_chains (organization_id, unchained) SELECT organization_id, count(*) FROM audit GROUP BY organization_id;

-- The functions below run with the rights of their owner, so that a role of the
-- service needs none on audit_chains and can't delete lines by itself.
-- +goose StatementBegin
CREATE FUNCTION audit_chain_end(organization text) RETURNS audit_chains LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    chain audit_chains;
BEGIN
    SELECT * INTO chain FROM audit_chains WHERE organization_id = organization FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO audit_chains (organization_id) VALUES (organization) ON CONFLICT DO NOTHING;
        SELECT * INTO chain FROM audit_chains WHERE organization_id = organization FOR NO KEY UPDATE;
    END IF;
    RETURN chain;
END
$$;

CREATE FUNCTION audit_append() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE audit_chains SET lines = NEW.seq, hash = NEW.hash WHERE organization_id = NEW.organization_id AND lines = NEW.seq - 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'audit_out_of_sequence';
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION audit_drop(organization text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM audit_chain_end(organization);
    DELETE FROM audit WHERE organization_id = organization;
    UPDATE audit_chains SET removed = lines, removed_hash = hash, unchained = 0 WHERE organization_id = organization;
END
$$;

CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.organization_id = '' OR EXISTS (SELECT 1 FROM organizations WHERE id = OLD.organization_id) THEN
            RAISE EXCEPTION 'audit_append_only';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'TRUNCATE' OR (NEW.address, NEW.address_salt) NOT IN ((OLD.address, OLD.address_salt), ('', ''))
        OR (NEW.reason, NEW.reason_salt) NOT IN ((OLD.reason, OLD.reason_salt), ('', ''))
        OR (NEW.id, NEW.organization_id, NEW.action, NEW.subject_kind, NEW.subject_id, NEW.actor_kind, NEW.actor_id, NEW.actor_role, NEW.request_id, NEW.created_at,
            NEW.seq, NEW.hash, NEW.address_digest, NEW.reason_digest)
        IS DISTINCT FROM
           (OLD.id, OLD.organization_id, OLD.action, OLD.subject_kind, OLD.subject_id, OLD.actor_kind, OLD.actor_id, OLD.actor_role, OLD.request_id, OLD.created_at,
            OLD.seq, OLD.hash, OLD.address_digest, OLD.reason_digest) THEN
        RAISE EXCEPTION 'audit_append_only';
    END IF;
    RETURN NEW;
END
$$;

-- A caller's search_path must not decide which tables they mean.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['audit_chain_end(text)', 'audit_append()', 'audit_drop(text)', 'audit_append_only()'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_appended AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_append();

-- +goose Down
DROP TRIGGER audit_appended ON audit;
DROP FUNCTION audit_append;
DROP FUNCTION audit_drop;
DROP FUNCTION audit_chain_end;
DROP TABLE audit_chains;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.organization_id = '' OR EXISTS (SELECT 1 FROM organizations WHERE id = OLD.organization_id) THEN
            RAISE EXCEPTION 'audit_append_only';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'TRUNCATE' OR NEW.address NOT IN (OLD.address, '') OR NEW.reason NOT IN (OLD.reason, '')
        OR (NEW.id, NEW.organization_id, NEW.action, NEW.subject_kind, NEW.subject_id, NEW.actor_kind, NEW.actor_id, NEW.actor_role, NEW.request_id, NEW.created_at)
        IS DISTINCT FROM
           (OLD.id, OLD.organization_id, OLD.action, OLD.subject_kind, OLD.subject_id, OLD.actor_kind, OLD.actor_id, OLD.actor_role, OLD.request_id, OLD.created_at) THEN
        RAISE EXCEPTION 'audit_append_only';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
ALTER TABLE audit DROP COLUMN seq, DROP COLUMN hash, DROP COLUMN address_salt, DROP COLUMN address_digest, DROP COLUMN reason_salt, DROP COLUMN reason_digest;
