-- Times are microseconds since 1970, days are JST days since 1970-01-01. What a customer's operation says stands only in
-- entries.sealed; everything else is ids, times and hashes. The same tables as on SQLite; what guards them is rights instead of triggers.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE logs (
    number BIGINT NOT NULL PRIMARY KEY,
    log_id BYTEA NOT NULL UNIQUE,
    group_id TEXT NOT NULL,
    incarnation TEXT UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('living', 'retained', 'erased')),
    made_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE UNIQUE INDEX logs_present ON logs (group_id) WHERE state <> 'erased';
CREATE INDEX logs_of_group ON logs (group_id, number);

CREATE TABLE heads (
    log BIGINT NOT NULL PRIMARY KEY REFERENCES logs (number),
    size BIGINT NOT NULL,
    peaks BYTEA NOT NULL,
    day BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE entries (
    log BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    day BIGINT NOT NULL,
    time_us BIGINT NOT NULL,
    appended_us BIGINT NOT NULL,
    segment BIGINT NOT NULL,
    id BYTEA,
    leaf BYTEA NOT NULL,
    sealed BYTEA
);
CREATE UNIQUE INDEX entries_of_log ON entries (log, sequence);
CREATE UNIQUE INDEX entries_by_id ON entries (segment, id, log) WHERE id IS NOT NULL;
-- gaps and retentions, which are few
CREATE INDEX entries_without_body ON entries (log, sequence) WHERE id IS NULL;

CREATE TABLE segments (
    segment BIGINT NOT NULL PRIMARY KEY,
    began_at BIGINT NOT NULL
);

CREATE TABLE nodes (
    log BIGINT NOT NULL,
    level BIGINT NOT NULL,
    number BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (log, level, number)
);

CREATE TABLE day_keys (
    day BIGINT NOT NULL,
    log BIGINT NOT NULL,
    epoch TEXT NOT NULL,
    key_id BYTEA NOT NULL,
    first BIGINT NOT NULL,
    wrapped BYTEA NOT NULL,
    superseded_at BIGINT,
    PRIMARY KEY (day, log, epoch)
);
CREATE INDEX day_keys_superseded ON day_keys (superseded_at) WHERE superseded_at IS NOT NULL;

CREATE TABLE intents (
    log BIGINT NOT NULL,
    operation BYTEA NOT NULL,
    sequence BIGINT NOT NULL,
    PRIMARY KEY (log, operation)
);

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

-- Logs only grow, whoever changes their heads.
CREATE FUNCTION heads_only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.size < OLD.size OR NEW.log <> OLD.log THEN
        RAISE EXCEPTION 'logs only grow';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER heads_only_grow BEFORE UPDATE ON heads FOR EACH ROW EXECUTE FUNCTION heads_only_grow();

-- Nobody changes or removes an entry, the owner of the tables included, but for what destroy_expired_day does.
CREATE FUNCTION entries_never_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.sealed IS NULL AND (NEW.log, NEW.sequence, NEW.day, NEW.time_us, NEW.appended_us, NEW.segment, NEW.leaf)
                = (OLD.log, OLD.sequence, OLD.day, OLD.time_us, OLD.appended_us, OLD.segment, OLD.leaf)
                AND NEW.id IS NOT DISTINCT FROM OLD.id AND OLD.day + 366 <= history_today() THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'entries of the history never change before their day has expired, and are never deleted';
END $$;

-- The JST day by the database's own clock.
CREATE FUNCTION history_today() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (floor(extract(epoch FROM clock_timestamp()) + 32400)::bigint / 86400)
$$;

CREATE TRIGGER entries_never_change BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION entries_never_change();
CREATE TRIGGER entries_stay BEFORE TRUNCATE ON entries FOR EACH STATEMENT EXECUTE FUNCTION entries_never_change();

-- The one way in which something of the history goes: keys and bodies of a log's day, after the end of day D+365 by this database's
-- clock. Answers how many bodies went.
CREATE FUNCTION destroy_expired_day(of_log bigint, of_day bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    gone bigint;
BEGIN
    IF of_log = 0 OR of_day + 366 > history_today() THEN
        RAISE EXCEPTION 'day % of log % has not expired', of_day, of_log;
    END IF;
    UPDATE entries SET sealed = NULL WHERE log = of_log AND day = of_day AND sealed IS NOT NULL
        AND sequence >= (SELECT min(first) FROM day_keys WHERE day_keys.log = of_log AND day_keys.day = of_day);
    GET DIAGNOSTICS gone = ROW_COUNT;
    DELETE FROM day_keys WHERE log = of_log AND day = of_day;
    RETURN gone;
END $$;

-- Wrappings by an epoch key that was followed by another one, a day later by this database's clock, where the newer wrapping is there.
CREATE FUNCTION retire_wrappings(before_us bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM day_keys k WHERE k.superseded_at IS NOT NULL
        AND k.superseded_at <= least(before_us, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 86400000000)
        AND EXISTS (SELECT 1 FROM day_keys n WHERE n.day = k.day AND n.log = k.log AND n.superseded_at IS NULL);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
REVOKE ALL ON FUNCTION destroy_expired_day(bigint, bigint), retire_wrappings(bigint) FROM PUBLIC;

-- What the service may do, whose role the owner names: SELECT grant_history('tsujiban_audit').
CREATE FUNCTION grant_history(to_role text) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    name text;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), to_role);
    FOREACH name IN ARRAY ARRAY['entries', 'nodes', 'segments', 'root_lists'] LOOP
        EXECUTE format('GRANT SELECT, INSERT ON %I TO %I', name, to_role);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['meta', 'heads', 'listed'] LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO %I', name, to_role);
    END LOOP;
    EXECUTE format('GRANT SELECT, INSERT ON logs TO %I', to_role);
    EXECUTE format('GRANT UPDATE (incarnation, state, ended_at) ON logs TO %I', to_role);
    EXECUTE format('GRANT SELECT, INSERT ON day_keys TO %I', to_role);
    EXECUTE format('GRANT UPDATE (superseded_at) ON day_keys TO %I', to_role);
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON intents TO %I', to_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION destroy_expired_day(bigint, bigint), retire_wrappings(bigint) TO %I', to_role);
END $$;
REVOKE ALL ON FUNCTION grant_history(text) FROM PUBLIC;
