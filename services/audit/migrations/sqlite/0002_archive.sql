-- What of the history lies in the bucket, besides the root lists: the archive, from which a lost database comes back.

-- How far each log lies there, and how often it was begun anew, since entries were lost and the log went on as another one.
CREATE TABLE archived (
    log BIGINT NOT NULL PRIMARY KEY REFERENCES logs (number),
    size BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    -- where its newest section in the archive begins, and the number of the list with which that was put
    newest_first BIGINT NOT NULL,
    newest_number BIGINT NOT NULL
);

-- The day on which the locks of a span of a log's entries end. Before it, what still has to be there is put once more (repeated).
CREATE TABLE archived_spans (
    log BIGINT NOT NULL,
    lock_day BIGINT NOT NULL,
    repeated BOOLEAN NOT NULL,
    first BIGINT NOT NULL,
    past BIGINT NOT NULL,
    PRIMARY KEY (log, lock_day, repeated)
) WITHOUT ROWID;
CREATE INDEX archived_spans_by_day ON archived_spans (lock_day);

-- The objects, by the number of the root list with which each was put.
CREATE TABLE archive_parts (
    name TEXT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    put_us BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX archive_parts_by_time ON archive_parts (put_us);
