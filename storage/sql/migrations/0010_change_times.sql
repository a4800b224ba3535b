-- Changes of all services, in order. Found by the index alone: who asks for a rare name or id reads no row of the
-- history for it. Revisions only rise, so a write adds to its end.
CREATE INDEX history_by_revision ON history (revision, at, by, correlation_id);
