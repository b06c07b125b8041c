-- How an account wants to see its conversation with a peer. There is no row where nothing is set.
CREATE TABLE conversation_flags (
    account BLOB NOT NULL REFERENCES accounts (account),
    peer BLOB NOT NULL REFERENCES accounts (account),
    muted INTEGER NOT NULL CHECK (muted IN (0, 1)),
    pinned INTEGER NOT NULL CHECK (pinned IN (0, 1)),
    put_away INTEGER NOT NULL CHECK (put_away IN (0, 1)),
    PRIMARY KEY (account, peer)
) STRICT, WITHOUT ROWID;
