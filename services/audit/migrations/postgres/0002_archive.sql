-- What of the history lies in the bucket, besides the root lists: the archive, from which a lost database comes back. The same tables as on
-- SQLite.

CREATE TABLE archived (
    log BIGINT NOT NULL PRIMARY KEY REFERENCES logs (number),
    size BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    -- where its newest section in the archive begins, and the number of the list with which that was put
    newest_first BIGINT NOT NULL,
    newest_number BIGINT NOT NULL
);

CREATE TABLE archived_spans (
    log BIGINT NOT NULL,
    lock_day BIGINT NOT NULL,
    repeated BOOLEAN NOT NULL,
    first BIGINT NOT NULL,
    past BIGINT NOT NULL,
    PRIMARY KEY (log, lock_day, repeated)
);
CREATE INDEX archived_spans_by_day ON archived_spans (lock_day);

CREATE TABLE archive_parts (
    name TEXT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    put_us BIGINT NOT NULL
);
CREATE INDEX archive_parts_by_time ON archive_parts (put_us);

-- Gives a log that came back from the bucket to the group whose it is. A log that has a group keeps it.
CREATE FUNCTION claim_log(of_id bytea, for_group text, with_incarnation text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    claimed bigint;
BEGIN
    UPDATE logs SET group_id = for_group, incarnation = with_incarnation WHERE log_id = of_id AND left(group_id, 1) = '?';
    GET DIAGNOSTICS claimed = ROW_COUNT;
    RETURN claimed;
END $$;
REVOKE ALL ON FUNCTION claim_log(bytea, text, text) FROM PUBLIC;

-- What the service may do with these tables, whose role the owner names, as in grant_history.
CREATE FUNCTION grant_archive(to_role text) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON archived TO %I', to_role);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON archived_spans TO %I', to_role);
    EXECUTE format('GRANT SELECT, INSERT ON archive_parts TO %I', to_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION claim_log(bytea, text, text) TO %I', to_role);
END $$;
REVOKE ALL ON FUNCTION grant_archive(text) FROM PUBLIC;
