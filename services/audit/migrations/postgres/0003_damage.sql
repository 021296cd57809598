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
);
CREATE TABLE healed_nodes (
    log BIGINT NOT NULL,
    level BIGINT NOT NULL,
    number BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (log, level, number)
);

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

CREATE FUNCTION healed_entries_never_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.sealed IS NULL AND (NEW.log, NEW.sequence, NEW.day, NEW.time_us, NEW.appended_us, NEW.leaf, NEW.healed_at)
                = (OLD.log, OLD.sequence, OLD.day, OLD.time_us, OLD.appended_us, OLD.leaf, OLD.healed_at)
                AND NEW.id IS NOT DISTINCT FROM OLD.id AND OLD.day + 366 <= history_today() THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'entries of the history never change before their day has expired, and are never deleted';
END $$;
CREATE TRIGGER healed_entries_never_change BEFORE UPDATE OR DELETE ON healed_entries
    FOR EACH ROW EXECUTE FUNCTION healed_entries_never_change();
CREATE TRIGGER healed_entries_stay BEFORE TRUNCATE ON healed_entries
    FOR EACH STATEMENT EXECUTE FUNCTION healed_entries_never_change();

-- Beside destroy_expired_day: the bodies of healed entries of the same day.
CREATE FUNCTION destroy_healed_day(of_log bigint, of_day bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF of_day + 366 > history_today() THEN
        RAISE EXCEPTION 'day % of log % has not expired', of_day, of_log;
    END IF;
    UPDATE healed_entries SET sealed = NULL WHERE log = of_log AND day = of_day AND sealed IS NOT NULL;
END $$;
REVOKE ALL ON FUNCTION destroy_healed_day(bigint, bigint) FROM PUBLIC;

ALTER FUNCTION grant_history(text) RENAME TO grant_history_without_healing;
CREATE FUNCTION grant_history(to_role text) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    name text;
BEGIN
    PERFORM grant_history_without_healing(to_role);
    FOREACH name IN ARRAY ARRAY['log_seals', 'healed_entries', 'healed_nodes'] LOOP
        EXECUTE format('GRANT SELECT, INSERT ON %I TO %I', name, to_role);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['scrubs', 'damages'] LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO %I', name, to_role);
    END LOOP;
    EXECUTE format('GRANT EXECUTE ON FUNCTION destroy_healed_day(bigint, bigint) TO %I', to_role);
END $$;
REVOKE ALL ON FUNCTION grant_history(text) FROM PUBLIC;
