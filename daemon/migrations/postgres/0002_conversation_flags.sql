-- How an account wants to see its conversation with a peer. There is no row where nothing is set. The same as in ../sqlite.
CREATE TABLE conversation_flags (
    account BYTEA NOT NULL REFERENCES accounts (account),
    peer BYTEA NOT NULL REFERENCES accounts (account),
    muted BOOLEAN NOT NULL,
    pinned BOOLEAN NOT NULL,
    put_away BOOLEAN NOT NULL,
    PRIMARY KEY (account, peer)
);
