-- Who does it: workers, leases, jobs, units, and what went wrong.

CREATE TABLE worker(
  worker_id TEXT PRIMARY KEY,
  incarnation TEXT NOT NULL,                            -- the last one seen
  version TEXT NOT NULL,
  provenance_id INTEGER REFERENCES provenance(id),
  first_seen_time_us INTEGER NOT NULL,
  last_seen_time_us INTEGER NOT NULL,
  draining INTEGER NOT NULL
) STRICT;

-- The right of one slot of one worker to compute some units of one cell. Kept for ever: it says
-- where each sample was made.
CREATE TABLE lease(
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  cell_id INTEGER NOT NULL REFERENCES cell(id),
  worker_id TEXT NOT NULL,
  incarnation TEXT NOT NULL,
  slot_index INTEGER NOT NULL,
  provenance_id INTEGER NOT NULL REFERENCES provenance(id),
  granted_time_us INTEGER NOT NULL,
  ended_time_us INTEGER,                                -- NULL while it is open
  end_reason TEXT
) STRICT;
CREATE INDEX lease_open ON lease(id) WHERE ended_time_us IS NULL;
CREATE INDEX lease_of_cell ON lease(cell_id, provenance_id);

-- A unit of a cell: one item, once. The row appears with the first grant; a unit without a row is
-- queued. It holds the state, and of its sample what aggregates need, so that they read this table
-- alone: a million rows in some 40 MB, clustered by cell.
--   state 1 queued, 2 leased, 3 done, 4 quarantined
--   verdict 0 not graded, 1 correct, 2 wrong, 3 no answer, 4 grader error: the current grade's
--   finish_reason 1 stop, 2 length, 3 context, 4 rejected
CREATE TABLE unit(
  cell_id INTEGER NOT NULL REFERENCES cell(id),
  item_index INTEGER NOT NULL,
  repeat INTEGER NOT NULL,
  state INTEGER NOT NULL CHECK(state BETWEEN 1 AND 4),
  epoch INTEGER NOT NULL,               -- raised by each grant, and when its sample is requeued
  num_grants INTEGER NOT NULL,          -- since the first, or since the sample was requeued
  num_failures INTEGER NOT NULL,        -- on distinct worker incarnations
  lease_id INTEGER NOT NULL REFERENCES lease(id),       -- the last one that held it
  sample_id INTEGER,                    -- when done
  verdict INTEGER NOT NULL DEFAULT 0,
  finish_reason INTEGER NOT NULL DEFAULT 0,
  completion_tokens INTEGER NOT NULL DEFAULT 0,
  thinking_tokens INTEGER,              -- NULL: it did not think, or is not done
  PRIMARY KEY(cell_id, item_index, repeat),
  CHECK((state = 3) = (sample_id IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX unit_leased ON unit(lease_id) WHERE state = 2;
CREATE INDEX unit_quarantined ON unit(cell_id, item_index, repeat) WHERE state = 4;

-- Grants that did not bring their unit's sample. A late answer that is kept after all takes its row
-- away again.
CREATE TABLE attempt(
  id INTEGER PRIMARY KEY,
  cell_id INTEGER NOT NULL,
  item_index INTEGER NOT NULL,
  repeat INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  lease_id INTEGER NOT NULL REFERENCES lease(id),
  outcome TEXT NOT NULL CHECK(outcome IN
    ('expired', 'failed', 'infrastructure', 'worker_lost', 'revoked', 'returned', 'fenced')),
  message TEXT NOT NULL,
  forgiven INTEGER NOT NULL DEFAULT 0,  -- by `assay sweep retry`: no step to quarantine any more
  ended_time_us INTEGER NOT NULL,
  UNIQUE(cell_id, item_index, repeat, epoch),
  FOREIGN KEY(cell_id, item_index, repeat) REFERENCES unit(cell_id, item_index, repeat)
) STRICT;

-- Work that is not units: kind 1 makes an artifact.
CREATE TABLE job(
  id INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,
  artifact_id INTEGER NOT NULL REFERENCES artifact(id),
  state INTEGER NOT NULL CHECK(state BETWEEN 1 AND 4),  -- queued, leased, done, failed
  epoch INTEGER NOT NULL,
  num_failures INTEGER NOT NULL,
  error TEXT NOT NULL,                                  -- of the last failure
  worker_id TEXT NOT NULL,                              -- the last that had it
  incarnation TEXT NOT NULL,
  created_time_us INTEGER NOT NULL,
  finished_time_us INTEGER,                             -- done or failed
  duration_us INTEGER,                                  -- as the worker measured it
  UNIQUE(artifact_id, kind)
) STRICT;

-- What happened, in order.
CREATE TABLE event(
  id INTEGER PRIMARY KEY,
  time_us INTEGER NOT NULL,
  kind TEXT NOT NULL,
  sweep_id TEXT,                                        -- sweep.public_id
  cell_id INTEGER,
  worker_id TEXT,
  detail TEXT NOT NULL                                  -- a JSON object
) STRICT;
CREATE INDEX event_of_sweep ON event(sweep_id, id) WHERE sweep_id IS NOT NULL;

-- What a mutation answered, so that its retry is answered alike and done once.
CREATE TABLE answer(
  method TEXT NOT NULL,
  request_id TEXT NOT NULL,
  answer BLOB NOT NULL,
  time_us INTEGER NOT NULL,
  PRIMARY KEY(method, request_id)
) STRICT, WITHOUT ROWID;
