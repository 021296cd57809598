CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE accounts (
    id TEXT NOT NULL PRIMARY KEY,
    quota BIGINT NOT NULL,
    used BIGINT NOT NULL,
    closed BOOLEAN NOT NULL,
    secret BYTEA,
    note TEXT
);
CREATE TABLE entries (
    number BIGINT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (id)
);
