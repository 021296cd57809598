-- Times are microseconds since 1970. Ids are 32 hexadecimal digits. What a customer typed stands only in columns named
-- sealed, and in MACs under keys of the group.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE groups (
    incarnation TEXT NOT NULL PRIMARY KEY,
    group_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('living', 'retained', 'erased')),
    key_id TEXT NOT NULL,
    prepared_at BIGINT NOT NULL,
    ended_at BIGINT,
    id_free_at BIGINT
);
-- a group id has at most one incarnation with data
CREATE UNIQUE INDEX groups_present ON groups (group_id) WHERE state <> 'erased';

-- The key table. A data key has one wrapping, and for a day after the epoch changed two.
CREATE TABLE keys (
    key_id TEXT NOT NULL,
    epoch TEXT NOT NULL,
    -- the incarnation of the group or device whose data the key seals
    subject TEXT NOT NULL,
    group_incarnation TEXT NOT NULL,
    wrapped BYTEA NOT NULL,
    superseded_at BIGINT,
    PRIMARY KEY (key_id, epoch)
);
CREATE INDEX keys_of_group ON keys (group_incarnation);
CREATE INDEX keys_superseded ON keys (superseded_at) WHERE superseded_at IS NOT NULL;

-- How often groups and keys changed, and how much of that the copy in the bucket has. One row.
CREATE TABLE key_table (
    generation BIGINT NOT NULL,
    copied BIGINT NOT NULL,
    copied_at BIGINT,
    copied_epoch TEXT
);
INSERT INTO key_table (generation, copied) VALUES (0, 0);

CREATE TABLE devices (
    incarnation TEXT NOT NULL PRIMARY KEY,
    group_incarnation TEXT NOT NULL REFERENCES groups (incarnation),
    key_id TEXT NOT NULL,
    serial_mac BYTEA NOT NULL,
    name_mac BYTEA NOT NULL,
    sealed BYTEA NOT NULL,
    UNIQUE (group_incarnation, serial_mac)
);
CREATE INDEX devices_by_name ON devices (group_incarnation, name_mac);

CREATE TABLE snapshots (
    id TEXT NOT NULL PRIMARY KEY,
    device TEXT NOT NULL REFERENCES devices (incarnation),
    group_incarnation TEXT NOT NULL,
    version TEXT NOT NULL,
    driver TEXT NOT NULL,
    taken_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    sightings BIGINT NOT NULL,
    locked_until BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    stored_bytes BIGINT NOT NULL,
    stable_mac BYTEA NOT NULL,
    shrunk BOOLEAN NOT NULL
);
CREATE INDEX snapshots_of_device ON snapshots (device, id);
CREATE INDEX snapshots_of_group ON snapshots (group_incarnation, id);
CREATE INDEX snapshots_by_lock ON snapshots (locked_until);

-- Sealed objects of what was erased: unreadable, and still in the bucket until their lock has run out.
CREATE TABLE leftovers (
    object TEXT NOT NULL,
    version TEXT NOT NULL,
    group_incarnation TEXT NOT NULL,
    locked_until BIGINT NOT NULL,
    stored_bytes BIGINT NOT NULL,
    PRIMARY KEY (object, version)
);
CREATE INDEX leftovers_by_lock ON leftovers (locked_until);

-- The newest attempt of each device.
CREATE TABLE attempts (
    device TEXT NOT NULL PRIMARY KEY REFERENCES devices (incarnation),
    cursor BIGINT NOT NULL UNIQUE,
    time BIGINT NOT NULL,
    reason TEXT,
    changed BOOLEAN NOT NULL,
    sealed BYTEA NOT NULL
);

-- What calls with these keys were answered.
CREATE TABLE idempotency (
    group_incarnation TEXT NOT NULL,
    key TEXT NOT NULL,
    device TEXT NOT NULL,
    -- NULL: the call stored no snapshot
    snapshot TEXT,
    changed BOOLEAN NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (group_incarnation, key)
);
CREATE INDEX idempotency_by_age ON idempotency (at);
