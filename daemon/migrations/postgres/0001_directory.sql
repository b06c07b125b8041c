-- The directory: who exists, and which devices speak for whom. The same tables as in ../sqlite.
--
-- Ids and hashes are the bytes that travel. Times are milliseconds since the Unix epoch. Whatever changes an account or its
-- devices holds the lock of the account's row, so what it reads it may rely on when it writes.

-- Data directories. A sequence never gives a number twice, not even after a transaction was rolled back or a row is gone.
CREATE TABLE origins (
    origin BIGINT GENERATED ALWAYS AS IDENTITY (MAXVALUE 4294967295) PRIMARY KEY,
    created_ms BIGINT NOT NULL
);

CREATE TABLE accounts (
    account BYTEA NOT NULL PRIMARY KEY CHECK (length(account) = 16),
    -- Sorted by bytes, as in SQLite, whatever the language of the database is.
    handle TEXT COLLATE "C" NOT NULL,
    -- argon2id, as a PHC string.
    password_hash TEXT NOT NULL,
    -- Raised in the transaction of every change to the account's devices or privacy.
    version BIGINT NOT NULL CHECK (version >= 1),
    created_ms BIGINT NOT NULL,
    -- When the operator disabled the account; null while it may be used. A disabled account has no devices.
    disabled_ms BIGINT,
    -- Whether those who wrote to the account are told that it has read their messages.
    read_receipts BOOLEAN NOT NULL DEFAULT TRUE,
    -- The daemon knows this name: it tells two who ask for one handle at once from ids that are not random.
    CONSTRAINT accounts_handle_key UNIQUE (handle)
);

CREATE TABLE devices (
    device BYTEA NOT NULL PRIMARY KEY CHECK (length(device) = 16),
    account BYTEA NOT NULL REFERENCES accounts (account),
    name TEXT NOT NULL,
    platform TEXT NOT NULL,
    -- SHA-256 of the token that opens the device's sessions.
    token_hash BYTEA NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    created_ms BIGINT NOT NULL,
    -- Recorded at most once a minute while the device is connected, and when it goes.
    last_seen_ms BIGINT NOT NULL
);

CREATE INDEX devices_by_account ON devices (account);

CREATE TABLE invites (
    -- SHA-256 of the invite.
    invite_hash BYTEA NOT NULL PRIMARY KEY CHECK (length(invite_hash) = 32),
    created_ms BIGINT NOT NULL,
    used_ms BIGINT,
    used_by BYTEA REFERENCES accounts (account),
    CHECK ((used_ms IS NULL) = (used_by IS NULL))
);

-- Which directory this is. A data directory remembers it, since its origin number means something in this one alone.
CREATE TABLE identity (
    single INTEGER PRIMARY KEY CHECK (single = 1),
    directory BYTEA NOT NULL CHECK (length(directory) = 16)
);

INSERT INTO identity (single, directory) VALUES (1, uuid_send(gen_random_uuid()));
