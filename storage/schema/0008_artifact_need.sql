-- What making an artifact needs of a slot: calibration runs the unquantized model. 0: not known.
ALTER TABLE artifact ADD COLUMN memory_need_bytes INTEGER NOT NULL DEFAULT 0;
