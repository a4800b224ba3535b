-- The first schema. STRICT tables: a wrong type is an error, not a surprise.

CREATE TABLE counters (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,
    epoch_seq INTEGER NOT NULL,
    epoch_id TEXT NOT NULL,
    audit_head TEXT NOT NULL
) STRICT;

CREATE TABLE epochs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    at TEXT NOT NULL,
    reason TEXT
) STRICT;

-- one row per service, as of its newest revision (tombstones stay)
CREATE TABLE configurations (
    service TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    epoch_seq INTEGER NOT NULL,
    epoch_id TEXT NOT NULL,
    stored TEXT NOT NULL,
    effective TEXT NOT NULL,
    defaulted TEXT NOT NULL,
    secrets TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    correlation_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- each stored key, and the revision that last changed it
CREATE TABLE items (
    service TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (service, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
    service TEXT NOT NULL,
    revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    epoch_seq INTEGER NOT NULL,
    epoch_id TEXT NOT NULL,
    at TEXT NOT NULL,
    by TEXT NOT NULL,
    action TEXT NOT NULL,
    reason TEXT,
    correlation_id TEXT NOT NULL,
    changes TEXT NOT NULL,
    -- the page query walks this backwards; without it a page at 50,000 rows takes 30 ms
    PRIMARY KEY (service, revision)
) STRICT, WITHOUT ROWID;

-- which revisions touched a key, for `?key=`
CREATE TABLE history_keys (
    service TEXT NOT NULL,
    key TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (service, key, revision)
) STRICT, WITHOUT ROWID;

-- hash = SHA-256(hash of the row before, as hex, followed by body)
CREATE TABLE audit (
    revision INTEGER PRIMARY KEY,
    body BLOB NOT NULL,
    hash TEXT NOT NULL
) STRICT;

CREATE TABLE schemas (
    service TEXT NOT NULL,
    version INTEGER NOT NULL,
    digest TEXT NOT NULL,
    schema TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (service, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    nonce BLOB NOT NULL,
    ciphertext BLOB NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (service, name, version)
) STRICT, WITHOUT ROWID;

-- what brokers have to hold: the newest payload per service, byte for byte as it is signed
CREATE TABLE outbox (
    service TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    payload BLOB NOT NULL,
    confirmed_revision INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    answer BLOB NOT NULL,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_age ON idempotency (at);

-- hashes only: SHA-256 in hex
CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL
) STRICT, WITHOUT ROWID;
