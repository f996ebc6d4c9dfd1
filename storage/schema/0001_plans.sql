-- What is to be done: models, benchmarks, methods, cells and the sweeps that want them.
-- Public identifiers ("sweep-0123456789ab") are in public_id; a column TABLE_id refers to TABLE.id.

-- Small named values of the coordinator itself.
CREATE TABLE meta(
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Where samples were made: one row per distinct build and machine.
CREATE TABLE provenance(
  id INTEGER PRIMARY KEY,
  git_commit TEXT NOT NULL,
  assay_version TEXT NOT NULL,
  build_type TEXT NOT NULL,
  compiler TEXT NOT NULL,
  hostname TEXT NOT NULL,
  device TEXT NOT NULL,
  backend TEXT NOT NULL,
  engine_numerics_version TEXT NOT NULL,
  driver_versions TEXT NOT NULL,
  UNIQUE(git_commit, assay_version, build_type, compiler, hostname, device, backend,
         engine_numerics_version, driver_versions)
) STRICT;

CREATE TABLE model(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  content_hash TEXT NOT NULL,
  UNIQUE(content_hash, name)
) STRICT;

CREATE TABLE benchmark(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  version_hash TEXT NOT NULL UNIQUE,
  prompt_version TEXT NOT NULL,
  grader TEXT NOT NULL,
  num_items INTEGER NOT NULL
) STRICT;

CREATE TABLE item(
  benchmark_id INTEGER NOT NULL REFERENCES benchmark(id),
  item_index INTEGER NOT NULL,
  name TEXT NOT NULL,
  level TEXT NOT NULL,
  subject TEXT NOT NULL,
  gold TEXT NOT NULL,
  question TEXT NOT NULL,
  user_text TEXT NOT NULL,
  PRIMARY KEY(benchmark_id, item_index)
) STRICT;

-- A calibration set as its quantize jobs send it: JSON lines, compressed as `codec` says (1: zstd).
CREATE TABLE calibration(
  hash TEXT PRIMARY KEY,
  codec INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;

-- A quantization method with every parameter filled in; bf16 is the model as it is.
CREATE TABLE method(
  id INTEGER PRIMARY KEY,
  method TEXT NOT NULL,
  bits TEXT NOT NULL,
  group_size INTEGER NOT NULL,
  symmetric INTEGER NOT NULL,
  pre_bias INTEGER NOT NULL,
  virtual_shards INTEGER NOT NULL,
  calibration_set TEXT NOT NULL,
  parameters_json TEXT NOT NULL,
  label TEXT NOT NULL,
  UNIQUE(method, bits, group_size, symmetric, pre_bias, virtual_shards, calibration_set,
         parameters_json, label)
) STRICT;

CREATE TABLE artifact(
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  model_id INTEGER NOT NULL REFERENCES model(id),
  method_id INTEGER NOT NULL REFERENCES method(id),
  calibration_hash TEXT NOT NULL,
  state INTEGER NOT NULL CHECK(state BETWEEN 0 AND 2),  -- missing, ready, failed
  manifest_sha256 TEXT NOT NULL
) STRICT;

CREATE TABLE cell(
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  model_id INTEGER NOT NULL REFERENCES model(id),
  artifact_id INTEGER REFERENCES artifact(id),  -- NULL: the model as it is
  method_id INTEGER NOT NULL REFERENCES method(id),
  benchmark_id INTEGER NOT NULL REFERENCES benchmark(id),
  temperature REAL NOT NULL,
  top_p REAL NOT NULL,
  top_k INTEGER NOT NULL,
  max_tokens INTEGER NOT NULL,
  max_model_len INTEGER NOT NULL,
  sampling_seed INTEGER NOT NULL,
  budget_forcing_json TEXT NOT NULL,
  tensor_parallel_size INTEGER NOT NULL,
  engine_numerics_version TEXT NOT NULL
) STRICT;
CREATE INDEX cell_of_model ON cell(model_id, benchmark_id);
CREATE INDEX cell_of_artifact ON cell(artifact_id);

CREATE TABLE sweep(
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  owner TEXT NOT NULL,
  priority INTEGER NOT NULL,
  state INTEGER NOT NULL CHECK(state BETWEEN 1 AND 5),  -- active, paused, cancelled, done, failed
  created_time_us INTEGER NOT NULL,
  finished_time_us INTEGER,                             -- NULL while it runs
  spec_yaml TEXT NOT NULL,
  resolved_yaml TEXT NOT NULL,
  request_id TEXT UNIQUE                                -- of the call that submitted it
) STRICT;
CREATE INDEX sweep_unsettled ON sweep(id) WHERE state <= 2;

-- Which cells a sweep wants, and how much of each: the first num_items items, num_repeats times.
CREATE TABLE sweep_cell(
  sweep_id INTEGER NOT NULL REFERENCES sweep(id),
  position INTEGER NOT NULL,
  cell_id INTEGER NOT NULL REFERENCES cell(id),
  num_repeats INTEGER NOT NULL CHECK(num_repeats > 0),
  num_items INTEGER NOT NULL CHECK(num_items > 0),
  baseline_cell_id INTEGER REFERENCES cell(id),         -- NULL: this is the baseline
  PRIMARY KEY(sweep_id, position),
  UNIQUE(sweep_id, cell_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sweep_cell_of_cell ON sweep_cell(cell_id, sweep_id, num_items, num_repeats);
