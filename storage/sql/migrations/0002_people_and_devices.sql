-- Who may do what, and who receives secrets. The audit chain gets a count of its own, because not
-- everything that is audited is a revision.

CREATE TABLE audit_rows (
    seq INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    body BLOB NOT NULL,
    hash TEXT NOT NULL
) STRICT;

INSERT INTO audit_rows
    SELECT row_number() OVER (ORDER BY revision), revision, body, hash FROM audit;
DROP TABLE audit;
ALTER TABLE audit_rows RENAME TO audit;

ALTER TABLE counters ADD COLUMN audit_seq INTEGER NOT NULL DEFAULT 0;
UPDATE counters SET audit_seq = (SELECT coalesce(max(seq), 0) FROM audit);

-- what is not a configuration: tokens, devices, enrolments, deliveries; one JSON object a row
CREATE TABLE registry (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

INSERT INTO registry
    SELECT 'token', name, json_object(
        'hash', hash, 'role', 'admin', 'services', json_array('*'),
        'created_at', NULL, 'created_by', 'first start', 'expires_at', NULL)
    FROM tokens;
DROP TABLE tokens;
