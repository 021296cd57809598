-- Times are microseconds since 1970.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE groups (
    incarnation TEXT NOT NULL PRIMARY KEY,
    group_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('living', 'retained', 'erased')),
    prepared_at BIGINT NOT NULL,
    ended_at BIGINT
);
-- a group id has at most one incarnation with data
CREATE UNIQUE INDEX groups_present ON groups (group_id) WHERE state <> 'erased';

CREATE TABLE counters (
    incarnation TEXT NOT NULL PRIMARY KEY REFERENCES groups (incarnation),
    value BIGINT NOT NULL
);
