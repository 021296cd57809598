-- Devices that were erased, by the SHA-256 of the uid of their resource: nothing is stored for them any more. An entry goes
-- 35 days after the erasure.
CREATE TABLE tombstones (
    life BYTEA NOT NULL PRIMARY KEY,
    erased_at BIGINT NOT NULL
);
CREATE INDEX tombstones_by_age ON tombstones (erased_at);
