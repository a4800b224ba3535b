-- Changes of all services, in order. Found by the index alone: who asks for a rare name or id reads no row of the
-- history for it. Revisions only rise, so a write adds to its end.
CREATE INDEX history_by_revision ON history (revision, at, by, correlation_id);

-- when each change came and was durable; Unix seconds. Written with the first step that a broker confirms
CREATE TABLE change_times (
    revision INTEGER PRIMARY KEY,
    asked REAL,
    committed REAL NOT NULL,
    writes INTEGER NOT NULL,
    traceparent TEXT
) STRICT;

-- when each of its services was where at which broker
CREATE TABLE broker_times (
    revision INTEGER NOT NULL,
    service TEXT NOT NULL,
    broker TEXT NOT NULL,
    signed REAL,
    published REAL,
    acknowledged REAL,
    confirmed REAL,
    PRIMARY KEY (revision, service, broker)
) STRICT, WITHOUT ROWID;

-- how far instances got with a revision
ALTER TABLE receipts ADD COLUMN attempted INTEGER;
CREATE INDEX receipts_of_attempt ON receipts (service, attempted, id);
