-- When the operator disabled the account; null while it may be used. A disabled account has no devices.
ALTER TABLE accounts ADD COLUMN disabled_ms INTEGER;
