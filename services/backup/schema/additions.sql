-- What later versions keep beside the tables of the migrations. Version 0.1.0 refuses a database with a migration that it does not know, and
-- leaves tables alone that it does not know: so these are made at each start where they are missing, and one may still go back.

-- Devices that were erased, by their incarnation: their keys were destroyed on purpose. A key that is missing without such a row is damage.
CREATE TABLE IF NOT EXISTS erasures (
    subject TEXT NOT NULL PRIMARY KEY,
    group_incarnation TEXT NOT NULL,
    erased_at BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS erasures_by_age ON erasures (erased_at);

-- Of which erasures, of devices and of groups, the bucket has a record.
CREATE TABLE IF NOT EXISTS erasure_records (
    subject TEXT NOT NULL PRIMARY KEY
);

-- Uploads under way: an object of this name is in the storage, or about to be.
CREATE TABLE IF NOT EXISTS uploads (
    device TEXT NOT NULL PRIMARY KEY REFERENCES devices (incarnation) ON DELETE CASCADE,
    snapshot TEXT NOT NULL
);

-- What was found damaged.
CREATE TABLE IF NOT EXISTS damage (
    name TEXT NOT NULL PRIMARY KEY,
    -- NULL: it concerns all groups
    group_incarnation TEXT,
    device TEXT,
    -- of the object of a snapshot, which need not be in the catalogue
    snapshot TEXT,
    detail TEXT NOT NULL,
    found_at BIGINT NOT NULL,
    healed_at BIGINT,
    -- whether the operation history has that it was found
    recorded BOOLEAN NOT NULL
);
CREATE INDEX IF NOT EXISTS damage_of_group ON damage (group_incarnation);
CREATE INDEX IF NOT EXISTS damage_of_snapshot ON damage (snapshot);
