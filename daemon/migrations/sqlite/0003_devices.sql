-- What a device says it runs on, and when it was last connected.
--
-- Until now the time was exact to an hour and of the last session that was opened; from here on it is recorded at most once
-- a minute while the device is connected, and when it goes. A daemon that is killed loses the last minute of it.
ALTER TABLE devices ADD COLUMN platform TEXT NOT NULL DEFAULT '';
ALTER TABLE devices RENAME COLUMN last_used_ms TO last_seen_ms;
