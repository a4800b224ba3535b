-- Time travel: a service as a whole at every 64th version, so that any revision is a few changes away. A
-- checkpoint is sealed under a key that is not the database's, and one that is not sealed counts as none.

CREATE TABLE checkpoints (
    service TEXT NOT NULL,
    revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    stored TEXT NOT NULL,
    secrets TEXT NOT NULL,
    seal TEXT NOT NULL,
    PRIMARY KEY (service, revision)
) STRICT, WITHOUT ROWID;

-- which changes a rollback took back: those with after < revision <= upto, of these keys (NULL: of all)
CREATE TABLE taken_back (
    service TEXT NOT NULL,
    revision INTEGER NOT NULL,
    after INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    keys TEXT,
    PRIMARY KEY (service, revision)
) STRICT, WITHOUT ROWID;
