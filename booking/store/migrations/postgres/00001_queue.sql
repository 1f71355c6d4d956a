-- The live queue: tenants, their catalogue, people, bookings and what happens to them.
-- Composite foreign keys carry organization_id, so no row can point into another tenant.

-- +goose Up
CREATE TABLE organizations (
    id                     text PRIMARY KEY,
    name                   text NOT NULL CHECK (name <> ''),
    timezone               text NOT NULL CHECK (timezone <> ''),
    business_type_id       text NOT NULL DEFAULT '',
    business_custom_config jsonb,
    created_at             timestamptz NOT NULL,
    deleted_at             timestamptz
);

CREATE TABLE members (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    role            text NOT NULL CHECK (role IN ('owner', 'admin', 'provider', 'receptionist')),
    phone           text,
    email           text,
    first_name      text NOT NULL DEFAULT '',
    last_name       text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    UNIQUE (organization_id, id),
    UNIQUE (organization_id, phone),
    UNIQUE (organization_id, email),
    CHECK (phone IS NOT NULL OR email IS NOT NULL)
);

CREATE TABLE customers (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    phone           text,
    email           text,
    first_name      text NOT NULL DEFAULT '',
    last_name       text NOT NULL DEFAULT '',
    note            text NOT NULL DEFAULT '',
    data            jsonb,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    UNIQUE (organization_id, id),
    UNIQUE (organization_id, phone),
    UNIQUE (organization_id, email)
);

CREATE TABLE booking_types (
    id                       text PRIMARY KEY,
    organization_id          text NOT NULL REFERENCES organizations (id),
    name                     text NOT NULL CHECK (name <> ''),
    name_translations        jsonb,
    description              text NOT NULL DEFAULT '',
    description_translations jsonb,
    prefix                   text NOT NULL CHECK (length(prefix) BETWEEN 1 AND 3),
    minutes                  integer NOT NULL CHECK (minutes BETWEEN 1 AND 1440),
    price                    text NOT NULL DEFAULT '',
    payment_methods          jsonb,
    category                 text NOT NULL DEFAULT '',
    color                    text NOT NULL DEFAULT '',
    is_on                    boolean NOT NULL,
    auto_confirm             boolean NOT NULL,
    book_from_website        boolean NOT NULL,
    details                  jsonb,
    created_at               timestamptz NOT NULL,
    updated_at               timestamptz NOT NULL,
    deleted_at               timestamptz,
    UNIQUE (organization_id, id)
);
CREATE UNIQUE INDEX booking_types_prefix ON booking_types (organization_id, prefix) WHERE deleted_at IS NULL;

CREATE TABLE resources (
    id                       text PRIMARY KEY,
    organization_id          text NOT NULL REFERENCES organizations (id),
    name                     text NOT NULL CHECK (name <> ''),
    name_translations        jsonb,
    description              text NOT NULL DEFAULT '',
    description_translations jsonb,
    category                 text NOT NULL DEFAULT '',
    is_on                    boolean NOT NULL,
    activated                boolean NOT NULL,
    book_from_website        boolean NOT NULL,
    paused                   boolean NOT NULL DEFAULT false,
    provider_id              text,
    details                  jsonb,
    created_at               timestamptz NOT NULL,
    updated_at               timestamptz NOT NULL,
    deleted_at               timestamptz,
    UNIQUE (organization_id, id),
    FOREIGN KEY (organization_id, provider_id) REFERENCES members (organization_id, id)
);

CREATE TABLE resource_types (
    organization_id text NOT NULL,
    resource_id     text NOT NULL,
    type_id         text NOT NULL,
    PRIMARY KEY (resource_id, type_id),
    FOREIGN KEY (organization_id, resource_id) REFERENCES resources (organization_id, id),
    FOREIGN KEY (organization_id, type_id) REFERENCES booking_types (organization_id, id)
);
CREATE INDEX resource_types_type ON resource_types (type_id);

-- Numbers are counted per prefix, and a prefix belongs to one type at a time:
-- a ticket is never repeated on a local day, even when prefixes change hands.
CREATE TABLE ticket_counters (
    organization_id text NOT NULL REFERENCES organizations (id),
    local_day       text NOT NULL,
    prefix          text NOT NULL,
    last_number     integer NOT NULL,
    PRIMARY KEY (organization_id, local_day, prefix)
);

CREATE TABLE bookings (
    seq                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                  text NOT NULL UNIQUE,
    organization_id     text NOT NULL REFERENCES organizations (id),
    customer_id         text NOT NULL,
    type_id             text NOT NULL,
    resource_id         text,
    status              text NOT NULL CHECK (status IN ('PENDING_APPROVAL', 'PENDING_PAYMENT', 'PENDING_ASSIGNMENT', 'CONFIRMED', 'CANCELED', 'REJECTED')),
    stage               text NOT NULL CHECK (stage IN ('', 'WAITING', 'HELD', 'CALLED', 'SERVING', 'DONE', 'NO_SHOW', 'LEFT')),
    ticket              text NOT NULL,
    local_day           text NOT NULL,
    priority            integer NOT NULL CHECK (priority BETWEEN 0 AND 100),
    version             bigint NOT NULL,
    filter_category     text NOT NULL DEFAULT '',
    filter_resources    boolean NOT NULL DEFAULT false,
    note                text NOT NULL DEFAULT '',
    info                jsonb,
    assignment_timeout  integer NOT NULL CHECK (assignment_timeout BETWEEN 5 AND 180),
    assignment_deadline timestamptz,
    payment_deadline    timestamptz,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    pending_at          timestamptz,
    called_at           timestamptz,
    last_called_at      timestamptz,
    recall_count        integer NOT NULL DEFAULT 0 CHECK (recall_count BETWEEN 0 AND 3),
    started_at          timestamptz,
    ended_at            timestamptz,
    cancel_reason       text NOT NULL DEFAULT '',
    UNIQUE (organization_id, local_day, ticket),
    FOREIGN KEY (organization_id, customer_id) REFERENCES customers (organization_id, id),
    FOREIGN KEY (organization_id, type_id) REFERENCES booking_types (organization_id, id),
    FOREIGN KEY (organization_id, resource_id) REFERENCES resources (organization_id, id),
    CHECK (stage NOT IN ('WAITING', 'HELD') OR (status = 'PENDING_ASSIGNMENT' AND assignment_deadline IS NOT NULL)),
    CHECK (stage NOT IN ('CALLED', 'SERVING', 'DONE', 'NO_SHOW') OR resource_id IS NOT NULL)
);
CREATE INDEX bookings_waiting ON bookings (organization_id, type_id, priority DESC, seq) WHERE stage = 'WAITING';
CREATE INDEX bookings_assignment_deadline ON bookings (assignment_deadline) WHERE stage IN ('WAITING', 'HELD');
CREATE INDEX bookings_payment_deadline ON bookings (payment_deadline) WHERE status = 'PENDING_PAYMENT';
CREATE INDEX bookings_served ON bookings (organization_id, resource_id, last_called_at) WHERE resource_id IS NOT NULL;
CREATE INDEX bookings_type_ended ON bookings (type_id, ended_at) WHERE stage = 'DONE';
CREATE INDEX bookings_customer ON bookings (customer_id, created_at);
CREATE INDEX bookings_created ON bookings (organization_id, created_at);

CREATE TABLE booking_filter_resources (
    booking_seq bigint NOT NULL REFERENCES bookings (seq) ON DELETE CASCADE,
    resource_id text NOT NULL REFERENCES resources (id),
    PRIMARY KEY (booking_seq, resource_id)
);

-- The first estimate each customer was given, in minutes, to be scored against
-- the call. It stands apart and refers loosely, because writing it must not lock
-- a waiting booking: call-next passes over locked rows.
CREATE TABLE quotes (
    booking_id text PRIMARY KEY,
    low        integer NOT NULL,
    likely     integer NOT NULL,
    high       integer NOT NULL
);

-- How good the quotes were: the wait a customer was promised beside the wait they had.
CREATE VIEW quote_scores AS
SELECT b.organization_id, b.type_id, q.booking_id, q.low, q.likely, q.high, w.waited,
    w.waited - q.likely AS error, w.waited BETWEEN q.low AND q.high AS kept
FROM quotes q
JOIN bookings b ON b.id = q.booking_id
JOIN (SELECT b.id, EXTRACT(EPOCH FROM b.called_at - b.pending_at) / 60 AS waited FROM bookings b WHERE b.called_at IS NOT NULL) w ON w.id = q.booking_id;

-- What happened to which booking; written in the transaction that did it.
CREATE TABLE events (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    booking_id      text NOT NULL,
    booking_version bigint NOT NULL,
    type            text NOT NULL,
    data            jsonb NOT NULL,
    created_at      timestamptz NOT NULL,
    UNIQUE (booking_id, booking_version)
);

CREATE TABLE displays (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    name            text NOT NULL CHECK (name <> ''),
    resource_ids    jsonb,
    token_hash      text NOT NULL UNIQUE,
    created_at      timestamptz NOT NULL
);

-- organization_id is NULL for an account key, which acts for every organization.
CREATE TABLE api_keys (
    id              text PRIMARY KEY,
    organization_id text REFERENCES organizations (id),
    name            text NOT NULL CHECK (name <> ''),
    key_hash        text NOT NULL UNIQUE,
    created_at      timestamptz NOT NULL
);
CREATE UNIQUE INDEX api_keys_name ON api_keys (COALESCE(organization_id, ''), name);

CREATE TABLE one_time_codes (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    kind            text NOT NULL CHECK (kind IN ('customer', 'member')),
    address         text NOT NULL,
    code_hash       text NOT NULL,
    failures        integer NOT NULL DEFAULT 0,
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz,
    created_at      timestamptz NOT NULL
);
CREATE INDEX one_time_codes_address ON one_time_codes (organization_id, kind, address, created_at);

CREATE TABLE refresh_tokens (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    kind            text NOT NULL CHECK (kind IN ('customer', 'member')),
    subject_id      text NOT NULL,
    token_hash      text NOT NULL UNIQUE,
    expires_at      timestamptz NOT NULL,
    revoked_at      timestamptz,
    created_at      timestamptz NOT NULL
);

-- +goose Down
DROP VIEW quote_scores;
DROP TABLE refresh_tokens, one_time_codes, api_keys, displays, events, quotes, booking_filter_resources, bookings,
    ticket_counters, resource_types, resources, booking_types, customers, members, organizations;
