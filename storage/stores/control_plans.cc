// What a submitted sweep writes: its models, benchmarks, artifacts and cells, each once.
#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/stores/control_store.h"
#include "storage/stores/rows.h"
#include "storage/text/text_codec.h"

namespace assay::storage {

using sqlite::Blob;
using sqlite::Connection;
using sqlite::NullIfZero;
using sqlite::Row;
using sqlite::Statement;

namespace {

// The id that `find_sql` gives for these parameters; 0 when there is none.
template <typename... Args>
absl::StatusOr<int64_t> FindId(Connection* db, std::string_view find_sql, const Args&... args) {
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(find_sql));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(args...).Step());
  int64_t id = 0;
  if (found) Row(statement).Read(&id);
  return id;
}

// The id of the row with this content. The insert takes the same parameters as the search.
template <typename... Args>
absl::StatusOr<int64_t> FindOrInsert(Connection* db, std::string_view find_sql,
                                     std::string_view insert_sql, const Args&... args) {
  ASSAY_ASSIGN_OR_RETURN(const int64_t id, FindId(db, find_sql, args...));
  if (id != 0) return id;
  ASSAY_RETURN_IF_ERROR(db->Run(insert_sql, args...));
  return db->last_insert_id();
}

absl::StatusOr<int64_t> UpsertMethod(Connection* db, const MethodRecord& method) {
  return FindOrInsert(
      db,
      "SELECT id FROM method WHERE method = ?1 AND bits = ?2 AND group_size = ?3"
      " AND symmetric = ?4 AND pre_bias = ?5 AND virtual_shards = ?6 AND calibration_set = ?7"
      " AND parameters_json = ?8 AND label = ?9",
      "INSERT INTO method(method, bits, group_size, symmetric, pre_bias, virtual_shards,"
      " calibration_set, parameters_json, label) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
      method.method, method.bits, method.group_size, method.symmetric, method.pre_bias,
      method.virtual_shards, method.calibration_set, method.parameters_json, method.label);
}

}  // namespace

absl::StatusOr<int64_t> ControlStore::UpsertModel(const ModelRecord& model) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(
      const int64_t id,
      FindOrInsert(db, "SELECT id FROM model WHERE content_hash = ?1 AND name = ?2",
                   "INSERT INTO model(content_hash, name) VALUES(?1, ?2)", model.content_hash,
                   model.name));
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE model SET path = ?2 WHERE id = ?1 AND path != ?2", id, model.path));
  return id;
}

absl::StatusOr<int64_t> ControlStore::UpsertBenchmark(const BenchmarkRecord& benchmark,
                                                      std::span<const ItemRecord> items) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(
      const int64_t stored,
      FindId(db, "SELECT id FROM benchmark WHERE version_hash = ?1", benchmark.version_hash));
  if (stored != 0) return stored;
  ASSAY_CHECK(items.size() == static_cast<size_t>(benchmark.num_items),
              "{}: {} items given, num_items {}", benchmark.name, items.size(),
              benchmark.num_items);
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO benchmark(name, version_hash, prompt_version, grader, num_items)"
              " VALUES(?1, ?2, ?3, ?4, ?5)",
              benchmark.name, benchmark.version_hash, benchmark.prompt_version, benchmark.grader,
              benchmark.num_items));
  const int64_t id = db->last_insert_id();
  for (size_t i = 0; i < items.size(); ++i) {
    const ItemRecord& item = items[i];
    ASSAY_CHECK(item.item_index == static_cast<int32_t>(i), "{}: item {} has item_index {}",
                benchmark.name, i, item.item_index);
    ASSAY_RETURN_IF_ERROR(
        db->Run("INSERT INTO item(benchmark_id, item_index, name, level, subject, gold, question,"
                " user_text) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                id, item.item_index, item.name, item.level, item.subject, item.gold, item.question,
                item.user_text));
  }
  return id;
}

absl::StatusOr<int64_t> ControlStore::UpsertArtifact(const ArtifactRecord& artifact) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(const int64_t stored,
                         FindId(db, "SELECT id FROM artifact WHERE key = ?1", artifact.key));
  if (stored != 0) return stored;
  ASSAY_ASSIGN_OR_RETURN(const int64_t method_id, UpsertMethod(db, artifact.method));
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO artifact(key, model_id, method_id, calibration_hash, state,"
              " manifest_sha256, memory_need_bytes) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
              artifact.key, artifact.model_id, method_id, artifact.calibration_hash, artifact.state,
              artifact.manifest_sha256, artifact.memory_need_bytes));
  return db->last_insert_id();
}

absl::StatusOr<int64_t> ControlStore::UpsertCell(const CellRecord& cell) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(const int64_t stored, storage::FindCellByKey(db, cell.key));
  if (stored != 0) return stored;
  ASSAY_ASSIGN_OR_RETURN(const int64_t method_id, UpsertMethod(db, cell.method));
  const SamplingRecord& sampling = cell.sampling;
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO cell(key, model_id, artifact_id, method_id, benchmark_id, temperature,"
              " top_p, top_k, max_tokens, max_model_len, sampling_seed, budget_forcing_json,"
              " tensor_parallel_size, engine_numerics_version, memory_need_bytes,"
              " cpu_memory_need_bytes)"
              " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,"
              "        ?16)",
              cell.key, cell.model_id, NullIfZero{cell.artifact_id}, method_id, cell.benchmark_id,
              sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens,
              sampling.max_model_len, sampling.seed, sampling.budget_forcing_json,
              cell.tensor_parallel_size, cell.engine_numerics_version, cell.memory_need_bytes,
              cell.cpu_memory_need_bytes));
  return db->last_insert_id();
}

absl::Status ControlStore::UpsertCalibration(const std::string& calibration_hash,
                                             std::string_view jsonl) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  return db->Run(
      "INSERT INTO calibration(hash, codec, body) VALUES(?1, ?2, ?3) ON CONFLICT(hash) DO NOTHING",
      calibration_hash, kCodecZstd, Blob{CompressText(jsonl)});
}

absl::StatusOr<ControlStore::InsertedSweep> ControlStore::InsertSweep(
    const SweepRecord& sweep, std::span<const SweepCellRecord> cells) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  std::optional<std::string> request_id;
  if (!sweep.request_id.empty()) {
    request_id = sweep.request_id;
    ASSAY_ASSIGN_OR_RETURN(Statement statement,
                           db->Prepare("SELECT id, public_id FROM sweep WHERE request_id = ?1"));
    ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(*request_id).Step());
    if (found) {
      InsertedSweep stored;
      Row(statement).Read(&stored.id, &stored.sweep_id);
      return stored;
    }
  }
  ASSAY_RETURN_IF_ERROR(db->Run(
      "INSERT INTO sweep(public_id, name, owner, priority, state, created_time_us,"
      " finished_time_us, spec_yaml, resolved_yaml, request_id)"
      " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
      sweep.sweep_id, sweep.name, sweep.owner, sweep.priority, sweep.state, sweep.created_time_us,
      NullIfZero{sweep.finished_time_us}, sweep.spec_yaml, sweep.resolved_yaml, request_id));
  const InsertedSweep inserted = {db->last_insert_id(), sweep.sweep_id, true};
  for (const SweepCellRecord& cell : cells) {
    ASSAY_RETURN_IF_ERROR(
        db->Run("INSERT INTO sweep_cell(sweep_id, position, cell_id, num_repeats, num_items,"
                " baseline_cell_id) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                inserted.id, cell.position, cell.cell_id, cell.num_repeats, cell.num_items,
                NullIfZero{cell.baseline_cell_id}));
  }
  return inserted;
}

absl::Status ControlStore::SetSweepState(int64_t sweep_row_id, SweepState state,
                                         int64_t finished_time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_RETURN_IF_ERROR(db->Run("UPDATE sweep SET state = ?2, finished_time_us = ?3 WHERE id = ?1",
                                sweep_row_id, state, NullIfZero{finished_time_us}));
  if (db->num_changes() == 0) return NotFound("there is no sweep {}", sweep_row_id);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ControlStore::UpsertProvenance(const ProvenanceRecord& provenance) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  return FindOrInsert(
      db,
      "SELECT id FROM provenance WHERE git_commit = ?1 AND assay_version = ?2 AND build_type = ?3"
      " AND compiler = ?4 AND hostname = ?5 AND device = ?6 AND backend = ?7"
      " AND engine_numerics_version = ?8 AND driver_versions = ?9",
      "INSERT INTO provenance(git_commit, assay_version, build_type, compiler, hostname, device,"
      " backend, engine_numerics_version, driver_versions)"
      " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
      provenance.git_commit, provenance.assay_version, provenance.build_type, provenance.compiler,
      provenance.hostname, provenance.device, provenance.backend,
      provenance.engine_numerics_version, provenance.driver_versions);
}

}  // namespace assay::storage
