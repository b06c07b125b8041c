-- The archive: what was written in every conversation, and how far everybody is. The same as in ../sqlite_archive, but for the
-- messages, which lie in one table per month.
--
-- Ids and hashes are the bytes that travel. Positions, stamps and seqs are below 2^63. One transaction writes a batch and moves
-- `archived` with it. Kinds and states are the numbers of the code that writes here. Whoever writes what belongs to a conversation
-- holds the lock of its row in `conversations`; locks are taken in this order: archived, conversations by their ids, the rest.

-- Up to where each origin is archived.
CREATE TABLE archived (
    origin BIGINT NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL CHECK (position >= 0)
);

CREATE TABLE conversations (
    conversation BYTEA NOT NULL PRIMARY KEY CHECK (length(conversation) = 16),
    -- The number of its last change.
    seq BIGINT NOT NULL DEFAULT 0,
    -- Who synced to less than this has to read the conversation anew.
    floor BIGINT NOT NULL DEFAULT 0
);

-- Who is in a conversation, and the place of its newest message, by which lists are sorted.
CREATE TABLE members (
    account BYTEA NOT NULL CHECK (length(account) = 16),
    conversation BYTEA NOT NULL CHECK (length(conversation) = 16),
    peer BYTEA NOT NULL CHECK (length(peer) = 16),
    stamp BIGINT NOT NULL,
    origin BIGINT NOT NULL,
    PRIMARY KEY (account, conversation)
);

CREATE INDEX members_by_place ON members (account, stamp, origin, conversation);

-- The largest position that a conversation has had of an origin.
CREATE TABLE reach (
    conversation BYTEA NOT NULL CHECK (length(conversation) = 16),
    origin BIGINT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (conversation, origin)
);

CREATE TABLE messages (
    -- The month of the time in the id, as 202611; 0 for an id without one. It follows from the id alone, so that a message has one
    -- place whichever origin it comes from.
    month INTEGER NOT NULL,
    sender BYTEA NOT NULL CHECK (length(sender) = 16),
    id BYTEA NOT NULL CHECK (length(id) = 16),
    device BYTEA NOT NULL CHECK (length(device) = 16),
    recipient BYTEA NOT NULL CHECK (length(recipient) = 16),
    conversation BYTEA NOT NULL CHECK (length(conversation) = 16),
    origin BIGINT NOT NULL,
    position BIGINT NOT NULL,
    stamp BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    -- 0: something was said of it, and it is not there yet. 1: there. 2: deleted for everybody; the body is gone.
    state SMALLINT NOT NULL CHECK (state IN (0, 1, 2)),
    kind INTEGER NOT NULL,
    body BYTEA,
    -- Of recipient, kind and body as they were sent. Copies of a message have the same.
    hash BYTEA NOT NULL,
    is_deleted BOOLEAN NOT NULL,
    edit_stamp BIGINT,
    edit_origin BIGINT,
    reply_sender BYTEA,
    reply_id BYTEA,
    -- What is searched: the words of plain text that is there, and one for each account that may see it. Null for everything else.
    words TSVECTOR,
    -- The daemon knows this name: it is how a message that cannot be archived is told.
    CONSTRAINT messages_position_check CHECK (position > 0 OR state = 0),
    -- The month comes last: otherwise a search in some months might look through this index, too.
    PRIMARY KEY (sender, id, month)
) PARTITION BY RANGE (month);

CREATE INDEX messages_by_place ON messages (conversation, stamp, origin) WHERE state > 0;
CREATE INDEX messages_by_seq ON messages (conversation, seq);
CREATE INDEX messages_by_position ON messages (conversation, origin, sender, position) WHERE state = 1;
CREATE INDEX messages_by_words ON messages USING GIN (words);

-- The tables of the months, and between which stamps all their messages are. Widened before the messages come.
CREATE TABLE months (
    month INTEGER NOT NULL PRIMARY KEY,
    low BIGINT NOT NULL,
    high BIGINT NOT NULL
);

-- Makes the table of a month, where there is none, and widens what is known of it. It runs with the rights of who made the schema,
-- since the daemon's user may have none to make tables. Attaching an empty table keeps nobody waiting; making it as a partition
-- would lock all of them.
CREATE FUNCTION archive_month(wanted INTEGER, lowest BIGINT, highest BIGINT) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    made TEXT := 'messages_' || wanted;
BEGIN
    IF wanted <> 0 AND (wanted / 100 NOT BETWEEN 2020 AND 2099 OR wanted % 100 NOT BETWEEN 1 AND 12) THEN
        RAISE EXCEPTION 'there is no month %', wanted;
    END IF;
    -- Otherwise somebody's temporary tables would be found first.
    PERFORM set_config('search_path', current_setting('search_path') || ', pg_temp', true);
    PERFORM pg_advisory_xact_lock(7824, 1);
    IF to_regclass(quote_ident(made)) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE messages INCLUDING ALL)', made);
        EXECUTE format('ALTER TABLE messages ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', made, wanted, wanted + 1);
    END IF;
    INSERT INTO months AS known (month, low, high) VALUES (wanted, lowest, highest)
    ON CONFLICT (month) DO UPDATE SET low = least(known.low, lowest), high = greatest(known.high, highest);
END
$$;

-- What accounts have deleted for themselves.
CREATE TABLE hidden (
    account BYTEA NOT NULL CHECK (length(account) = 16),
    sender BYTEA NOT NULL CHECK (length(sender) = 16),
    id BYTEA NOT NULL CHECK (length(id) = 16),
    PRIMARY KEY (account, sender, id)
);

CREATE TABLE reactions (
    sender BYTEA NOT NULL CHECK (length(sender) = 16),
    id BYTEA NOT NULL CHECK (length(id) = 16),
    account BYTEA NOT NULL CHECK (length(account) = 16),
    -- UTF-8, which may have what a text of Postgres may not. Null: taken back.
    reaction BYTEA,
    stamp BIGINT NOT NULL,
    origin BIGINT NOT NULL,
    PRIMARY KEY (sender, id, account)
);

CREATE TABLE markers (
    conversation BYTEA NOT NULL CHECK (length(conversation) = 16),
    account BYTEA NOT NULL CHECK (length(account) = 16),
    -- 1: delivered. 2: read, for the account itself. 3: read, for others.
    kind SMALLINT NOT NULL CHECK (kind IN (1, 2, 3)),
    origin BIGINT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (conversation, account, kind, origin)
);

-- What could not be archived. A number is never given twice.
CREATE TABLE dead_letters (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    origin BIGINT NOT NULL,
    position BIGINT NOT NULL,
    error TEXT NOT NULL,
    frame BYTEA NOT NULL,
    context BYTEA NOT NULL
);
