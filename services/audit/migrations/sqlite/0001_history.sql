-- Times are microseconds since 1970, days are JST days since 1970-01-01. What a customer's operation says stands only in
-- entries.sealed; everything else is ids, times and hashes.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- One log for each incarnation of a group, and one of the platform's own (group_id ''). Numbers are short names in this database.
CREATE TABLE logs (
    number BIGINT NOT NULL PRIMARY KEY,
    log_id BYTEA NOT NULL UNIQUE,
    group_id TEXT NOT NULL,
    -- NULL until the group is prepared: an entry may come first
    incarnation TEXT UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('living', 'retained', 'erased')),
    made_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE UNIQUE INDEX logs_present ON logs (group_id) WHERE state <> 'erased';
CREATE INDEX logs_of_group ON logs (group_id, number);

-- How far a log has come: its size, the peaks of its Merkle tree (32 bytes each, the largest first), and the day of its newest entry.
CREATE TABLE heads (
    log BIGINT NOT NULL PRIMARY KEY REFERENCES logs (number),
    size BIGINT NOT NULL,
    peaks BYTEA NOT NULL,
    day BIGINT NOT NULL
);

-- Rows lie in the order in which they were appended, whatever log they belong to: a batch dirties the last pages and no others.
-- leaf is the entry of the log's bundles; sealed is NULL for gaps and retentions, and once the day's bodies are destroyed.
CREATE TABLE entries (
    log BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    day BIGINT NOT NULL,
    -- when it happened, and when it was appended
    time_us BIGINT NOT NULL,
    appended_us BIGINT NOT NULL,
    -- ids are looked up in segments: an index that is sorted by random ids alone would dirty a page for each entry
    segment BIGINT NOT NULL,
    id BYTEA,
    leaf BYTEA NOT NULL,
    sealed BYTEA
);
CREATE UNIQUE INDEX entries_of_log ON entries (log, sequence);
CREATE UNIQUE INDEX entries_by_id ON entries (segment, id, log) WHERE id IS NOT NULL;
-- gaps and retentions, which are few
CREATE INDEX entries_without_body ON entries (log, sequence) WHERE id IS NULL;

-- When each segment began.
CREATE TABLE segments (
    segment BIGINT NOT NULL PRIMARY KEY,
    began_at BIGINT NOT NULL
);

-- Hashes of complete subtrees, by level of tiles: level 1 over 256 leaves, level 2 over 65,536, and so on. Level 0 follows from the leaves.
CREATE TABLE nodes (
    log BIGINT NOT NULL,
    level BIGINT NOT NULL,
    number BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (log, level, number)
) WITHOUT ROWID;

-- The data key of a log's day, wrapped by each live epoch key. Log 0 is no log: its key seals the signing key.
CREATE TABLE day_keys (
    day BIGINT NOT NULL,
    log BIGINT NOT NULL,
    epoch TEXT NOT NULL,
    key_id BYTEA NOT NULL,
    -- the first entry of the day
    first BIGINT NOT NULL,
    wrapped BYTEA NOT NULL,
    superseded_at BIGINT,
    PRIMARY KEY (day, log, epoch)
) WITHOUT ROWID;
CREATE INDEX day_keys_superseded ON day_keys (superseded_at) WHERE superseded_at IS NOT NULL;

-- Intents without an outcome.
CREATE TABLE intents (
    log BIGINT NOT NULL,
    operation BYTEA NOT NULL,
    sequence BIGINT NOT NULL,
    PRIMARY KEY (log, operation)
) WITHOUT ROWID;

-- Root lists that lie in the bucket, and the size with which each log stands in the newest one that names it.
CREATE TABLE root_lists (
    number BIGINT NOT NULL PRIMARY KEY,
    hash BYTEA NOT NULL,
    day BIGINT NOT NULL,
    is_full BOOLEAN NOT NULL,
    at BIGINT NOT NULL
);
CREATE TABLE listed (
    log BIGINT NOT NULL PRIMARY KEY REFERENCES logs (number),
    size BIGINT NOT NULL
);

-- Nothing that was appended is changed or removed. Only the bodies and keys of a day go, after the end of day D+365 by this
-- machine's clock (86400 s a day, 9 h ahead of UTC).
CREATE TRIGGER entries_stay BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'entries of the history are never deleted'); END;

CREATE TRIGGER entries_never_change BEFORE UPDATE ON entries
WHEN NOT (
    NEW.sealed IS NULL
    AND OLD.day + 366 <= (CAST(strftime('%s', 'now') AS INTEGER) + 32400) / 86400
    AND NEW.log IS OLD.log AND NEW.sequence IS OLD.sequence AND NEW.day IS OLD.day AND NEW.time_us IS OLD.time_us
    AND NEW.appended_us IS OLD.appended_us AND NEW.segment IS OLD.segment AND NEW.id IS OLD.id AND NEW.leaf IS OLD.leaf
)
BEGIN SELECT RAISE(ABORT, 'entries of the history never change before their day has expired'); END;

CREATE TRIGGER nodes_stay BEFORE DELETE ON nodes
BEGIN SELECT RAISE(ABORT, 'the tree of the history is never cut'); END;
CREATE TRIGGER nodes_never_change BEFORE UPDATE ON nodes
BEGIN SELECT RAISE(ABORT, 'the tree of the history never changes'); END;

CREATE TRIGGER heads_only_grow BEFORE UPDATE ON heads WHEN NEW.size < OLD.size OR NEW.log <> OLD.log
BEGIN SELECT RAISE(ABORT, 'logs only grow'); END;
CREATE TRIGGER heads_stay BEFORE DELETE ON heads
BEGIN SELECT RAISE(ABORT, 'logs only grow'); END;

-- A wrapping goes when its day has expired, or a day after another one took its place.
CREATE TRIGGER day_keys_stay BEFORE DELETE ON day_keys
WHEN NOT (
    (OLD.log <> 0 AND OLD.day + 366 <= (CAST(strftime('%s', 'now') AS INTEGER) + 32400) / 86400)
    OR (OLD.superseded_at IS NOT NULL
        AND EXISTS (SELECT 1 FROM day_keys k WHERE k.day = OLD.day AND k.log = OLD.log AND k.superseded_at IS NULL))
)
BEGIN SELECT RAISE(ABORT, 'the key of a day that has not expired is never destroyed'); END;
