-- What instances that enrolled said, and when they drifted. Nobody decided any of it, so no row of the audit names it.
-- A receipt is proved by its own signature; its other columns are for finding it.

CREATE TABLE receipts (
    id INTEGER PRIMARY KEY, -- in the order in which they came
    service TEXT NOT NULL,
    instance TEXT NOT NULL,
    boot_seq INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    received_at REAL NOT NULL,
    revision INTEGER, -- that it runs
    stage TEXT, -- of its last attempt
    state TEXT NOT NULL,
    gone INTEGER NOT NULL,
    envelope BLOB NOT NULL
) STRICT;

-- With all that the start and the pruning look at: they read no envelope of the others.
CREATE INDEX receipts_of_instance ON receipts (service, instance, id, gone, revision, state);

CREATE TABLE drift_events (
    seq INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    instance TEXT NOT NULL,
    state TEXT NOT NULL,
    why TEXT NOT NULL,
    since REAL NOT NULL,
    began REAL NOT NULL,
    revision INTEGER,
    correlation_id TEXT,
    ended REAL, -- NULL while it is open
    ended_seq INTEGER
) STRICT;

CREATE INDEX drift_events_open ON drift_events (seq) WHERE ended IS NULL;
