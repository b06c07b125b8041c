-- Whether those who wrote to the account are told that it has read their messages. The account's version rises with it.
ALTER TABLE accounts ADD COLUMN read_receipts INTEGER NOT NULL DEFAULT 1 CHECK (read_receipts IN (0, 1));
