-- The archive: what was written in every conversation, and how far everybody is.
--
-- Ids and hashes are the bytes that travel. Positions, stamps and seqs are below 2^63. One transaction writes a batch and moves
-- `archived` with it. Kinds and states are the numbers of the code that writes here.

-- Up to where each origin is archived.
CREATE TABLE archived (
    origin INTEGER NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL CHECK (position >= 0)
) STRICT;

CREATE TABLE conversations (
    conversation BLOB NOT NULL PRIMARY KEY CHECK (length(conversation) = 16),
    -- The number of its last change.
    seq INTEGER NOT NULL,
    -- Who synced to less than this has to read the conversation anew.
    floor INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Who is in a conversation, and the place of its newest message, by which lists are sorted.
CREATE TABLE members (
    account BLOB NOT NULL CHECK (length(account) = 16),
    conversation BLOB NOT NULL CHECK (length(conversation) = 16),
    peer BLOB NOT NULL CHECK (length(peer) = 16),
    stamp INTEGER NOT NULL,
    origin INTEGER NOT NULL,
    PRIMARY KEY (account, conversation)
) STRICT, WITHOUT ROWID;

CREATE INDEX members_by_place ON members (account, stamp, origin, conversation, peer);

-- The largest position that a conversation has had of an origin.
CREATE TABLE reach (
    conversation BLOB NOT NULL,
    origin INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (conversation, origin)
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
    n INTEGER NOT NULL PRIMARY KEY,
    sender BLOB NOT NULL CHECK (length(sender) = 16),
    id BLOB NOT NULL CHECK (length(id) = 16),
    device BLOB NOT NULL,
    recipient BLOB NOT NULL CHECK (length(recipient) = 16),
    conversation BLOB NOT NULL CHECK (length(conversation) = 16),
    origin INTEGER NOT NULL,
    position INTEGER NOT NULL CHECK (position > 0 OR state = 0),
    stamp INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    -- 0: something was said of it, and it is not there yet. 1: there. 2: deleted for everybody; the body is gone.
    state INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    kind INTEGER NOT NULL,
    body BLOB,
    -- Of recipient, kind and body as they were sent. Copies of a message have the same.
    hash BLOB NOT NULL,
    is_deleted INTEGER NOT NULL DEFAULT 0 CHECK (is_deleted IN (0, 1)),
    edit_stamp INTEGER,
    edit_origin INTEGER,
    reply_sender BLOB,
    reply_id BLOB,
    UNIQUE (sender, id)
) STRICT;

CREATE INDEX messages_by_place ON messages (conversation, stamp, origin) WHERE state > 0;
CREATE INDEX messages_by_seq ON messages (conversation, seq);
CREATE INDEX messages_by_position ON messages (conversation, origin, sender, position) WHERE state = 1;

-- What accounts have deleted for themselves.
CREATE TABLE hidden (
    account BLOB NOT NULL CHECK (length(account) = 16),
    n INTEGER NOT NULL,
    PRIMARY KEY (account, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE reactions (
    n INTEGER NOT NULL,
    account BLOB NOT NULL CHECK (length(account) = 16),
    -- Null: taken back.
    reaction TEXT,
    stamp INTEGER NOT NULL,
    origin INTEGER NOT NULL,
    PRIMARY KEY (n, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE markers (
    conversation BLOB NOT NULL CHECK (length(conversation) = 16),
    account BLOB NOT NULL CHECK (length(account) = 16),
    -- 1: delivered. 2: read, for the account itself. 3: read, for others.
    kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    origin INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (conversation, account, kind, origin)
) STRICT, WITHOUT ROWID;

-- What could not be archived. A number is never given twice.
CREATE TABLE dead_letters (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    origin INTEGER NOT NULL,
    position INTEGER NOT NULL,
    error TEXT NOT NULL,
    frame BLOB NOT NULL,
    context BLOB NOT NULL
) STRICT;

-- What is searched: plain text that is there, with the two accounts that may see it as words of their own, so that a search
-- looks at nobody else's messages. Beginnings of three characters, the shortest that are searched, have an index of their own;
-- otherwise the messages of all words that begin so would be put together for each search. Accents count, as in the other archives.
CREATE VIEW texts (n, body, who) AS
    SELECT n, CAST(body AS TEXT), hex(sender) || ' ' || hex(recipient) FROM messages WHERE state = 1 AND kind = 1;

CREATE VIRTUAL TABLE found USING fts5 (
    body, who, content = 'texts', content_rowid = 'n', prefix = '3', tokenize = 'unicode61 remove_diacritics 0'
);
