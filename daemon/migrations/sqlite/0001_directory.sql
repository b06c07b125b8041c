-- The directory: who exists, and which devices speak for whom.
--
-- Ids and hashes are the bytes that travel. Times are milliseconds since the Unix epoch. Every change is made in a
-- transaction that began as a writer, so what it reads it may rely on when it writes.

-- Data directories. A number is never given twice, not even after its row is gone: hence AUTOINCREMENT.
CREATE TABLE origins (
    origin INTEGER PRIMARY KEY AUTOINCREMENT CHECK (origin BETWEEN 1 AND 4294967295),
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE accounts (
    account BLOB NOT NULL PRIMARY KEY CHECK (length(account) = 16),
    handle TEXT NOT NULL UNIQUE,
    -- argon2id, as a PHC string.
    password_hash TEXT NOT NULL,
    -- Raised in the transaction of every change to the account's devices.
    version INTEGER NOT NULL CHECK (version >= 1),
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    device BLOB NOT NULL PRIMARY KEY CHECK (length(device) = 16),
    account BLOB NOT NULL REFERENCES accounts (account),
    name TEXT NOT NULL,
    -- SHA-256 of the token that opens the device's sessions.
    token_hash BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    created_ms INTEGER NOT NULL,
    -- Exact to an hour.
    last_used_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX devices_by_account ON devices (account);

CREATE TABLE invites (
    -- SHA-256 of the invite.
    invite_hash BLOB NOT NULL PRIMARY KEY CHECK (length(invite_hash) = 32),
    created_ms INTEGER NOT NULL,
    used_ms INTEGER,
    used_by BLOB REFERENCES accounts (account),
    CHECK ((used_ms IS NULL) = (used_by IS NULL))
) STRICT, WITHOUT ROWID;
