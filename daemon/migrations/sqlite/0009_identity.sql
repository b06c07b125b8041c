-- Which directory this is. A data directory remembers it, since its origin number means something in this one alone.
CREATE TABLE identity (
    single INTEGER PRIMARY KEY CHECK (single = 1),
    directory BLOB NOT NULL CHECK (length(directory) = 16)
) STRICT;

INSERT INTO identity (single, directory) VALUES (1, randomblob(16));
