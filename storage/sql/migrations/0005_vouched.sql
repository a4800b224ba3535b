-- The end of the audit is sealed under a key that is not the database's. How often this instance has
-- started is known here too, for the day on which instance.json is lost.

ALTER TABLE counters ADD COLUMN audit_seal TEXT;
ALTER TABLE counters ADD COLUMN boot_seq INTEGER NOT NULL DEFAULT 0;
