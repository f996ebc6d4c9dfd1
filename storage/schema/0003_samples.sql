-- What came out. A sample is written once and never changed; grades come and go beside it.

CREATE TABLE sample(
  id INTEGER PRIMARY KEY AUTOINCREMENT,                 -- never given twice: the history keeps it
  cell_id INTEGER NOT NULL,
  item_index INTEGER NOT NULL,
  repeat INTEGER NOT NULL,
  lease_id INTEGER NOT NULL REFERENCES lease(id),       -- where it was made
  epoch INTEGER NOT NULL,
  seed INTEGER NOT NULL,                                -- the unsigned 64 bits, as a signed number
  prompt_sha256 BLOB NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  thinking_tokens INTEGER,                              -- NULL: it did not think
  finish_reason INTEGER NOT NULL CHECK(finish_reason BETWEEN 1 AND 4),
  queue_us INTEGER NOT NULL,
  ttft_us INTEGER NOT NULL,
  e2e_us INTEGER NOT NULL,
  mean_batch_size REAL NOT NULL,
  num_preemptions INTEGER NOT NULL,
  finished_time_us INTEGER NOT NULL,                    -- the worker's clock
  stored_time_us INTEGER NOT NULL,                      -- the coordinator's
  UNIQUE(cell_id, item_index, repeat),
  FOREIGN KEY(cell_id, item_index, repeat) REFERENCES unit(cell_id, item_index, repeat)
) STRICT;

-- Apart from sample, so that reading numbers never reads texts. Both bodies are compressed as `codec`
-- says (1: zstd); token ids are little-endian int32.
CREATE TABLE sample_text(
  sample_id INTEGER PRIMARY KEY REFERENCES sample(id) ON DELETE CASCADE,
  codec INTEGER NOT NULL,
  text BLOB NOT NULL,
  token_ids BLOB NOT NULL
) STRICT;

-- The newest grade of a sample counts; its verdict stands in unit.verdict too.
CREATE TABLE grade(
  sample_id INTEGER NOT NULL REFERENCES sample(id) ON DELETE CASCADE,
  grader TEXT NOT NULL,
  grader_version TEXT NOT NULL,
  verdict INTEGER NOT NULL CHECK(verdict BETWEEN 1 AND 4),
  extracted TEXT NOT NULL,
  detail TEXT NOT NULL,
  duration_us INTEGER NOT NULL,
  graded_time_us INTEGER NOT NULL,
  PRIMARY KEY(sample_id, grader, grader_version)
) STRICT, WITHOUT ROWID;

-- Samples that somebody put back into the queue: all that they were, under the id they had.
CREATE TABLE requeued_sample(
  id INTEGER PRIMARY KEY,
  cell_id INTEGER NOT NULL,
  item_index INTEGER NOT NULL,
  repeat INTEGER NOT NULL,
  lease_id INTEGER NOT NULL REFERENCES lease(id),
  epoch INTEGER NOT NULL,
  seed INTEGER NOT NULL,
  prompt_sha256 BLOB NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  thinking_tokens INTEGER,
  finish_reason INTEGER NOT NULL,
  queue_us INTEGER NOT NULL,
  ttft_us INTEGER NOT NULL,
  e2e_us INTEGER NOT NULL,
  mean_batch_size REAL NOT NULL,
  num_preemptions INTEGER NOT NULL,
  finished_time_us INTEGER NOT NULL,
  stored_time_us INTEGER NOT NULL,
  codec INTEGER NOT NULL,
  text BLOB NOT NULL,
  token_ids BLOB NOT NULL,
  requeued_time_us INTEGER NOT NULL
) STRICT;
CREATE INDEX requeued_sample_of_unit ON requeued_sample(cell_id, item_index, repeat);

CREATE TABLE requeued_grade(
  sample_id INTEGER NOT NULL REFERENCES requeued_sample(id),
  grader TEXT NOT NULL,
  grader_version TEXT NOT NULL,
  verdict INTEGER NOT NULL,
  extracted TEXT NOT NULL,
  detail TEXT NOT NULL,
  duration_us INTEGER NOT NULL,
  graded_time_us INTEGER NOT NULL,
  PRIMARY KEY(sample_id, grader, grader_version)
) STRICT, WITHOUT ROWID;
