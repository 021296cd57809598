-- Whose a log is, so that nobody can exchange the groups in table logs: a digest of number, id and group, keyed by the master key.
CREATE TABLE log_seals (
    log BIGINT NOT NULL PRIMARY KEY,
    seal BYTEA NOT NULL
);

-- A leaf names the id of its day's key; the days of a log are few.
CREATE INDEX day_keys_of_log ON day_keys (log, day);

-- Entries and hashes that were damaged, as they have to be. They are read instead of those in entries and nodes, which never change.
CREATE TABLE healed_entries (
    log BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    day BIGINT NOT NULL,
    time_us BIGINT NOT NULL,
    appended_us BIGINT NOT NULL,
    id BYTEA,
    leaf BYTEA NOT NULL,
    sealed BYTEA,
    healed_at BIGINT NOT NULL,
    PRIMARY KEY (log, sequence)
) WITHOUT ROWID;
CREATE TABLE healed_nodes (
    log BIGINT NOT NULL,
    level BIGINT NOT NULL,
    number BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (log, level, number)
) WITHOUT ROWID;

-- How far the scrub of each log has come. Log 0 is what belongs to no log.
CREATE TABLE scrubs (
    log BIGINT NOT NULL PRIMARY KEY,
    -- when the pass began that is on its way, and before which entry it goes on
    began_at BIGINT NOT NULL,
    before BIGINT NOT NULL,
    -- when the newest pass had begun that came to its end
    whole_at BIGINT
);

-- What is damaged now.
CREATE TABLE damages (
    log BIGINT NOT NULL,
    -- such as `entries 17 to 19`
    place TEXT NOT NULL,
    -- `entries`, `hash`, `key`, `head`, `list` or `database`
    kind TEXT NOT NULL,
    -- of entries: the first one, and the one past the last
    first BIGINT NOT NULL,
    beyond BIGINT NOT NULL,
    wrong TEXT NOT NULL,
    found_at BIGINT NOT NULL,
    healed_at BIGINT,
    -- whether the history says that it is damaged
    is_recorded BOOLEAN NOT NULL,
    PRIMARY KEY (log, place)
);

CREATE TRIGGER healed_entries_stay BEFORE DELETE ON healed_entries
BEGIN SELECT RAISE(ABORT, 'entries of the history are never deleted'); END;
CREATE TRIGGER healed_entries_never_change BEFORE UPDATE ON healed_entries
WHEN NOT (
    NEW.sealed IS NULL
    AND OLD.day + 366 <= (CAST(strftime('%s', 'now') AS INTEGER) + 32400) / 86400
    AND NEW.log IS OLD.log AND NEW.sequence IS OLD.sequence AND NEW.day IS OLD.day AND NEW.time_us IS OLD.time_us
    AND NEW.appended_us IS OLD.appended_us AND NEW.id IS OLD.id AND NEW.leaf IS OLD.leaf AND NEW.healed_at IS OLD.healed_at
)
BEGIN SELECT RAISE(ABORT, 'entries of the history never change before their day has expired'); END;
CREATE TRIGGER healed_nodes_stay BEFORE DELETE ON healed_nodes
BEGIN SELECT RAISE(ABORT, 'the tree of the history is never cut'); END;
CREATE TRIGGER healed_nodes_never_change BEFORE UPDATE ON healed_nodes
BEGIN SELECT RAISE(ABORT, 'the tree of the history never changes'); END;
