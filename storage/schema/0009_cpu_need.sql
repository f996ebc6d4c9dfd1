-- What a cell needs of a slot without GPUs, where the cache is float32 whatever its bits. 0: not known.
ALTER TABLE cell ADD COLUMN cpu_memory_need_bytes INTEGER NOT NULL DEFAULT 0;
