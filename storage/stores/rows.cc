#include "storage/stores/rows.h"

#include <sys/stat.h>

#include "base/status.h"

namespace assay::storage {

using sqlite::Connection;
using sqlite::Row;
using sqlite::Statement;

namespace {

// Steps a statement that must give a row.
absl::Status StepToRow(Statement* statement, const char* what, int64_t id) {
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement->Step());
  if (!found) return NotFound("there is no {} {}", what, id);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelRecord> LoadModel(Connection* db, int64_t id) {
  constexpr char kSql[] = "SELECT id, name, path, content_hash FROM model WHERE id = ?1";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  ASSAY_RETURN_IF_ERROR(StepToRow(&statement.Bind(id), "model", id));
  ModelRecord model;
  Row(statement).Read(&model.id, &model.name, &model.path, &model.content_hash);
  return model;
}

absl::StatusOr<BenchmarkRecord> LoadBenchmark(Connection* db, int64_t id) {
  constexpr char kSql[] =
      "SELECT id, name, version_hash, prompt_version, grader, num_items"
      "  FROM benchmark WHERE id = ?1";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  ASSAY_RETURN_IF_ERROR(StepToRow(&statement.Bind(id), "benchmark", id));
  BenchmarkRecord benchmark;
  Row(statement).Read(&benchmark.id, &benchmark.name, &benchmark.version_hash,
                      &benchmark.prompt_version, &benchmark.grader, &benchmark.num_items);
  return benchmark;
}

absl::StatusOr<MethodRecord> LoadMethod(Connection* db, int64_t id) {
  constexpr char kSql[] =
      "SELECT method, bits, group_size, symmetric, pre_bias, virtual_shards, calibration_set,"
      "       parameters_json, label"
      "  FROM method WHERE id = ?1";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  ASSAY_RETURN_IF_ERROR(StepToRow(&statement.Bind(id), "method", id));
  MethodRecord method;
  Row(statement).Read(&method.method, &method.bits, &method.group_size, &method.symmetric,
                      &method.pre_bias, &method.virtual_shards, &method.calibration_set,
                      &method.parameters_json, &method.label);
  return method;
}

absl::StatusOr<ArtifactRecord> LoadArtifact(Connection* db, int64_t id) {
  constexpr char kSql[] =
      "SELECT id, key, model_id, state, manifest_sha256, calibration_hash, memory_need_bytes,"
      "       method_id"
      "  FROM artifact WHERE id = ?1";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  ASSAY_RETURN_IF_ERROR(StepToRow(&statement.Bind(id), "artifact", id));
  ArtifactRecord artifact;
  int64_t method_id = 0;
  Row(statement).Read(&artifact.id, &artifact.key, &artifact.model_id, &artifact.state,
                      &artifact.manifest_sha256, &artifact.calibration_hash,
                      &artifact.memory_need_bytes, &method_id);
  ASSAY_ASSIGN_OR_RETURN(artifact.method, LoadMethod(db, method_id));
  return artifact;
}

absl::StatusOr<CellRecord> LoadCell(Connection* db, int64_t id) {
  constexpr char kSql[] =
      "SELECT id, key, model_id, artifact_id, benchmark_id, temperature, top_p, top_k, max_tokens,"
      "       max_model_len, sampling_seed, budget_forcing_json, tensor_parallel_size,"
      "       engine_numerics_version, memory_need_bytes, cpu_memory_need_bytes, method_id"
      "  FROM cell WHERE id = ?1";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  ASSAY_RETURN_IF_ERROR(StepToRow(&statement.Bind(id), "cell", id));
  CellRecord cell;
  SamplingRecord& sampling = cell.sampling;
  int64_t method_id = 0;
  Row(statement)
      .Read(&cell.id, &cell.key, &cell.model_id, &cell.artifact_id, &cell.benchmark_id)
      .Read(&sampling.temperature, &sampling.top_p, &sampling.top_k, &sampling.max_tokens,
            &sampling.max_model_len, &sampling.seed, &sampling.budget_forcing_json)
      .Read(&cell.tensor_parallel_size, &cell.engine_numerics_version, &cell.memory_need_bytes,
            &cell.cpu_memory_need_bytes, &method_id);
  ASSAY_ASSIGN_OR_RETURN(cell.method, LoadMethod(db, method_id));
  return cell;
}

absl::StatusOr<SweepRecord> LoadSweepRow(Connection* db, int64_t id) {
  constexpr char kSql[] =
      "SELECT id, public_id, name, owner, priority, state, created_time_us, finished_time_us,"
      "       spec_yaml, resolved_yaml, request_id"
      "  FROM sweep WHERE id = ?1";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  ASSAY_RETURN_IF_ERROR(StepToRow(&statement.Bind(id), "sweep", id));
  SweepRecord sweep;
  Row(statement)
      .Read(&sweep.id, &sweep.sweep_id, &sweep.name, &sweep.owner, &sweep.priority, &sweep.state)
      .Read(&sweep.created_time_us, &sweep.finished_time_us, &sweep.spec_yaml, &sweep.resolved_yaml,
            &sweep.request_id);
  return sweep;
}

absl::StatusOr<std::optional<ArtifactRecord>> FindArtifactByKey(Connection* db,
                                                                const std::string& key) {
  ASSAY_ASSIGN_OR_RETURN(Statement statement,
                         db->Prepare("SELECT id FROM artifact WHERE key = ?1"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(key).Step());
  if (!found) return std::nullopt;
  int64_t id = 0;
  Row(statement).Read(&id);
  ASSAY_ASSIGN_OR_RETURN(ArtifactRecord artifact, LoadArtifact(db, id));
  return artifact;
}

absl::StatusOr<int64_t> FindCellByKey(Connection* db, const std::string& key) {
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare("SELECT id FROM cell WHERE key = ?1"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(key).Step());
  int64_t id = 0;
  if (found) Row(statement).Read(&id);
  return id;
}

absl::StatusOr<std::vector<SweepCellRecord>> LoadSweepCells(Connection* db, int64_t sweep_row_id) {
  constexpr char kSql[] =
      "SELECT sweep_id, position, cell_id, num_repeats, num_items, baseline_cell_id"
      "  FROM sweep_cell WHERE sweep_id = ?1 ORDER BY position";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  statement.Bind(sweep_row_id);
  std::vector<SweepCellRecord> cells;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return cells;
    SweepCellRecord& cell = cells.emplace_back();
    Row(statement).Read(&cell.sweep_id, &cell.position, &cell.cell_id, &cell.num_repeats,
                        &cell.num_items, &cell.baseline_cell_id);
  }
}

absl::StatusOr<std::vector<ItemRecord>> LoadItems(Connection* db, int64_t benchmark_id,
                                                  bool with_texts) {
  constexpr char kSql[] =
      "SELECT item_index, name, level, subject, gold,"
      "       CASE WHEN ?2 THEN question END, CASE WHEN ?2 THEN user_text END"
      "  FROM item WHERE benchmark_id = ?1 ORDER BY item_index";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  statement.Bind(benchmark_id, with_texts);
  std::vector<ItemRecord> items;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return items;
    ItemRecord& item = items.emplace_back();
    Row(statement).Read(&item.item_index, &item.name, &item.level, &item.subject, &item.gold,
                        &item.question, &item.user_text);
  }
}

absl::StatusOr<std::vector<WorkerRecord>> LoadWorkers(Connection* db, bool only_draining) {
  constexpr char kSql[] =
      "SELECT worker_id, incarnation, version, provenance_id, first_seen_time_us,"
      "       last_seen_time_us, draining"
      "  FROM worker WHERE draining >= ?1 ORDER BY worker_id";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  statement.Bind(only_draining);
  std::vector<WorkerRecord> workers;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return workers;
    WorkerRecord& worker = workers.emplace_back();
    Row(statement).Read(&worker.worker_id, &worker.incarnation, &worker.version,
                        &worker.provenance_id, &worker.first_seen_time_us,
                        &worker.last_seen_time_us, &worker.draining);
  }
}

absl::StatusOr<std::vector<double>> MeanBaselineTokens(Connection* db,
                                                       const std::string& model_content_hash,
                                                       const std::string& benchmark_version_hash) {
  constexpr char kSql[] =
      "SELECT b.num_items, u.item_index, avg(u.completion_tokens)"
      "  FROM model AS m"
      "  JOIN cell AS c ON c.model_id = m.id AND c.artifact_id IS NULL"
      "  JOIN benchmark AS b ON b.id = c.benchmark_id"
      "  JOIN unit AS u ON u.cell_id = c.id AND u.state = 3"
      " WHERE m.content_hash = ?1 AND b.version_hash = ?2"
      " GROUP BY u.item_index ORDER BY u.item_index";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  statement.Bind(model_content_hash, benchmark_version_hash);
  std::vector<double> means;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return means;
    size_t num_items = 0;
    size_t item_index = 0;
    double mean = 0;
    Row(statement).Read(&num_items, &item_index, &mean);
    means.resize(num_items);
    if (item_index < num_items) means[item_index] = mean;
  }
}

absl::StatusOr<std::string> GetMeta(Connection* db, const std::string& key) {
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare("SELECT value FROM meta WHERE key = ?1"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(key).Step());
  std::string value;
  if (found) Row(statement).Read(&value);
  return value;
}

int64_t FileBytes(const std::string& path) {
  int64_t total = 0;
  for (const char* suffix : {"", "-wal"}) {
    struct stat info;
    if (stat((path + suffix).c_str(), &info) == 0) total += info.st_size;
  }
  return total;
}

}  // namespace assay::storage
