// The values that go in and out of the database: plain structs, one per table row or per answer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace assay::storage {

// A model as planned: what people call it, where it is found and the content it must have.
struct ModelRecord {
  int64_t id = 0;
  std::string name;
  std::string path;          // empty: found by its name under the model roots
  std::string content_hash;  // SHA-256 over the files' names and hashes

  const std::string& place() const { return path.empty() ? name : path; }
};

struct ItemRecord {
  int32_t item_index = 0;  // position in the benchmark's file order
  std::string name;        // "arith-L1-001"
  std::string question;
  std::string user_text;  // the prompt: what the user's turn says
  std::string gold;
  std::string level;  // "1".."5", or empty
  std::string subject;
};

struct BenchmarkRecord {
  int64_t id = 0;
  std::string name;          // "arith500"
  std::string version_hash;  // over items, prompt template and grader name
  std::string prompt_version;
  std::string grader;  // "boxed_number"
  int32_t num_items = 0;
};

// A method with every parameter filled in; `canonical` is what keys are made of.
struct MethodRecord {
  std::string method;  // "rtn"
  std::string bits;    // "4-16-16"
  int32_t group_size = 0;
  bool symmetric = false;
  bool pre_bias = false;
  int32_t virtual_shards = 1;
  std::string calibration_set;  // name; empty when none
  std::string parameters_json;  // further parameters as a JSON object with sorted keys
  std::string label;            // as people say it: "kvquant_star pre-bias"
};

enum class ArtifactState : int32_t { kMissing = 0, kReady = 1, kFailed = 2 };

struct ArtifactRecord {
  int64_t id = 0;
  std::string key;  // content key, hexadecimal SHA-256
  int64_t model_id = 0;
  MethodRecord method;
  ArtifactState state = ArtifactState::kMissing;
  std::string manifest_sha256;  // once ready
  std::string calibration_hash;
  int64_t memory_need_bytes = 0;  // of making it, over all GPUs of a gang; 0: not known
};

struct SamplingRecord {
  double temperature = 0.6;
  double top_p = 0.95;
  int32_t top_k = 0;
  int64_t max_tokens = 0;
  int64_t max_model_len = 0;
  int64_t seed = 42;                // the sweep seed
  std::string budget_forcing_json;  // empty when off
};

// One (model, artifact, benchmark, sampling): shared by every sweep that asks for it.
struct CellRecord {
  int64_t id = 0;
  std::string key;  // content key
  int64_t model_id = 0;
  int64_t artifact_id = 0;  // 0: the model as it is (bf16)
  int64_t benchmark_id = 0;
  MethodRecord method;  // bf16 for the model as it is
  SamplingRecord sampling;
  int32_t tensor_parallel_size = 1;
  std::string engine_numerics_version;
  int64_t memory_need_bytes = 0;      // estimated, over all GPUs of a gang; 0: not known
  int64_t cpu_memory_need_bytes = 0;  // the same of a slot without GPUs
};

enum class SweepState : int32_t {
  kActive = 1,
  kPaused = 2,
  kCancelled = 3,
  kDone = 4,
  kFailed = 5,
};

struct SweepRecord {
  int64_t id = 0;
  std::string sweep_id;  // "sweep-0123456789ab": what people say
  std::string name;
  std::string owner;
  int32_t priority = 50;
  SweepState state = SweepState::kActive;
  int64_t created_time_us = 0;
  int64_t finished_time_us = 0;
  std::string spec_yaml;
  std::string resolved_yaml;
  std::string request_id;
};

// A cell's place in a sweep.
struct SweepCellRecord {
  int64_t sweep_id = 0;  // SweepRecord::id
  int32_t position = 0;
  int64_t cell_id = 0;
  int32_t num_repeats = 1;
  int32_t num_items = 0;         // the first items of the benchmark (a spec may limit them)
  int64_t baseline_cell_id = 0;  // 0: this is the baseline
};

// Units have a row only from their first grant on: a unit without one is queued. So planning a
// sweep writes a row per cell, not per unit.
enum class UnitState : int32_t {
  kQueued = 1,  // granted before, and back in the queue
  kLeased = 2,
  kDone = 3,
  kQuarantined = 4,
};

struct UnitId {
  int64_t cell_id = 0;
  int32_t item_index = 0;
  int32_t repeat = 0;
  friend auto operator<=>(const UnitId&, const UnitId&) = default;
};

struct UnitRecord {
  UnitId unit;
  int64_t epoch = 0;  // raised by each grant, in the granting transaction
  UnitState state = UnitState::kQueued;
  int32_t num_failures = 0;  // on distinct worker incarnations
  std::string lease_id;      // while leased
};

enum class JobKind : int32_t { kQuantize = 1 };
enum class JobState : int32_t { kQueued = 1, kLeased = 2, kDone = 3, kFailed = 4 };

struct JobRecord {
  int64_t id = 0;
  JobKind kind = JobKind::kQuantize;
  int64_t artifact_id = 0;
  JobState state = JobState::kQueued;
  int64_t epoch = 0;
  int32_t num_failures = 0;
  std::string error;
  std::string worker_id;  // while leased
  std::string incarnation;
};

struct LeaseRecord {
  std::string lease_id;
  int64_t cell_id = 0;
  std::string worker_id;
  std::string incarnation;
  int32_t slot_index = 0;
  int64_t granted_time_us = 0;
  int64_t ended_time_us = 0;  // 0 while it is open
  std::string end_reason;     // "completed", "expired", "worker_lost", "revoked"
};

struct GradeRecord {
  std::string grader;
  std::string grader_version;
  int32_t verdict = 0;  // assay.v1.Grade.Verdict
  std::string extracted;
  std::string detail;
  int64_t duration_us = 0;
};

struct SampleRecord {
  int64_t id = 0;
  UnitId unit;
  std::string lease_id;
  int64_t epoch = 0;
  std::string worker_id;
  std::string incarnation;
  std::string text_zstd;
  std::string token_ids_zstd;
  std::string prompt_sha256;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t thinking_tokens = -1;
  int32_t finish_reason = 0;  // assay.v1.FinishReason
  uint64_t seed = 0;
  int64_t queue_us = 0;
  int64_t ttft_us = 0;
  int64_t e2e_us = 0;
  double mean_batch_size = 0;
  int32_t num_preemptions = 0;
  int64_t finished_time_us = 0;
  std::optional<GradeRecord> grade;
};

enum class InsertOutcome { kAccepted, kDuplicate, kFenced };

struct EventRecord {
  int64_t id = 0;
  int64_t time_us = 0;
  std::string kind;
  std::string sweep_id;  // "sweep-..." or empty
  int64_t cell_id = 0;   // 0: none
  std::string worker_id;
  std::string detail_json;  // an object
};

// A person's token, as far as it is stored: never the token itself.
struct TokenRecord {
  std::string token_id;  // public: it is part of the token
  std::string name;      // the person
  int32_t role = 0;      // 1 viewer, 2 submitter, 3 admin
  std::string hash;      // SHA-256 of the token, in hexadecimal
  int64_t created_time_us = 0;
  int64_t last_used_time_us = 0;  // to within a minute; 0: never
  int64_t revoked_time_us = 0;    // 0: good
};

struct ProvenanceRecord {
  std::string git_commit;
  std::string assay_version;
  std::string build_type;
  std::string compiler;
  std::string hostname;
  std::string device;
  std::string backend;
  std::string engine_numerics_version;
  std::string driver_versions;
};

struct WorkerRecord {
  std::string worker_id;
  std::string incarnation;  // the last one seen
  std::string version;
  int64_t provenance_id = 0;  // 0: not known
  int64_t first_seen_time_us = 0;
  int64_t last_seen_time_us = 0;
  bool draining = false;
};

}  // namespace assay::storage
