-- A schema has a life: who made each version, and from which revision on values were shaped by it.

ALTER TABLE schemas ADD COLUMN source TEXT NOT NULL DEFAULT 'catalogue';
ALTER TABLE schemas ADD COLUMN by TEXT NOT NULL DEFAULT 'config-manager';
ALTER TABLE schemas ADD COLUMN reason TEXT;
ALTER TABLE schemas ADD COLUMN correlation_id TEXT NOT NULL DEFAULT '';
ALTER TABLE schemas ADD COLUMN differences TEXT;
ALTER TABLE schemas ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;

UPDATE schemas SET revision =
    coalesce((SELECT max(revision) FROM history WHERE history.at < schemas.at), 0);

-- version: NULL if from then on the service has no schema
CREATE TABLE schema_activations (
    service TEXT NOT NULL,
    revision INTEGER NOT NULL,
    version INTEGER,
    PRIMARY KEY (service, revision)
) STRICT, WITHOUT ROWID;

INSERT INTO schema_activations
    SELECT service, revision + 1, max(version) FROM schemas GROUP BY service, revision;
