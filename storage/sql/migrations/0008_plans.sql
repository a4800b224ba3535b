-- A plan keeps what it would write, and what that was worked out from. It is sealed under a key that is not the
-- database's, and one that is not sealed counts as none.

CREATE TABLE plans (
    id TEXT PRIMARY KEY,
    seq INTEGER NOT NULL, -- of the row of the audit with which it was made
    at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    by TEXT NOT NULL,
    reason TEXT,
    services TEXT NOT NULL,
    digest TEXT NOT NULL,
    base TEXT NOT NULL,
    result TEXT NOT NULL,
    shown TEXT NOT NULL,
    outcome TEXT, -- NULL until it is applied
    seal TEXT NOT NULL
) STRICT, WITHOUT ROWID;
