-- A broker may show beacons of any age; whether we made them is whether their row is here.
CREATE INDEX audit_by_hash ON audit (hash);
