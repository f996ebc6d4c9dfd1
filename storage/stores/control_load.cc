// What the control plane reads: its state at start, and cells that come up later.
#include <set>

#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/stores/control_store.h"
#include "storage/stores/rows.h"
#include "storage/text/text_codec.h"

namespace assay::storage {

using sqlite::Connection;
using sqlite::Row;
using sqlite::Statement;

namespace {

absl::Status LoadUnits(Connection* db, CellData* data) {
  constexpr char kSql[] =
      "SELECT item_index, repeat, state, epoch, num_failures, num_grants, verdict,"
      "       completion_tokens,"
      "       CASE WHEN state = 2 THEN (SELECT public_id FROM lease WHERE id = lease_id) END"
      "  FROM unit WHERE cell_id = ?1 ORDER BY item_index, repeat";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  statement.Bind(data->cell.id);
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return absl::OkStatus();
    UnitRecord unit;
    unit.unit.cell_id = data->cell.id;
    int32_t num_grants = 0;
    int32_t verdict = 0;
    int64_t completion_tokens = 0;
    Row row(statement);
    row.Read(&unit.unit.item_index, &unit.unit.repeat, &unit.state, &unit.epoch, &unit.num_failures,
             &num_grants, &verdict, &completion_tokens, &unit.lease_id);
    if (num_grants > 1) ++data->num_rerolls;
    data->completion_tokens += completion_tokens;
    if (verdict == 1) ++data->num_correct;
    if (unit.state == UnitState::kDone) {
      data->done.push_back({unit.unit.item_index, unit.unit.repeat});
    } else {
      data->open.push_back(std::move(unit));
    }
  }
}

absl::StatusOr<std::vector<LeaseRecord>> LoadOpenLeases(Connection* db) {
  constexpr char kSql[] =
      "SELECT public_id, cell_id, worker_id, incarnation, slot_index, granted_time_us"
      "  FROM lease WHERE ended_time_us IS NULL ORDER BY id";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  std::vector<LeaseRecord> leases;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return leases;
    LeaseRecord& lease = leases.emplace_back();
    Row(statement).Read(&lease.lease_id, &lease.cell_id, &lease.worker_id, &lease.incarnation,
                        &lease.slot_index, &lease.granted_time_us);
  }
}

}  // namespace

absl::StatusOr<CellData> ControlStore::LoadCellData(int64_t cell_id) {
  Connection* const db = connection_.get();
  CellData data;
  ASSAY_ASSIGN_OR_RETURN(data.cell, LoadCell(db, cell_id));
  ASSAY_ASSIGN_OR_RETURN(data.model, LoadModel(db, data.cell.model_id));
  ASSAY_ASSIGN_OR_RETURN(data.benchmark, LoadBenchmark(db, data.cell.benchmark_id));
  if (data.cell.artifact_id != 0) {
    ASSAY_ASSIGN_OR_RETURN(data.artifact, LoadArtifact(db, data.cell.artifact_id));
  }
  ASSAY_RETURN_IF_ERROR(LoadUnits(db, &data));
  return data;
}

absl::StatusOr<std::vector<CellData>> ControlStore::LoadCells(std::span<const int64_t> cell_ids) {
  std::vector<CellData> cells;
  for (const int64_t cell_id : cell_ids) {
    ASSAY_ASSIGN_OR_RETURN(CellData data, LoadCellData(cell_id));
    cells.push_back(std::move(data));
  }
  return cells;
}

absl::StatusOr<std::vector<ItemRecord>> ControlStore::LoadItems(int64_t benchmark_id) {
  return storage::LoadItems(connection_.get(), benchmark_id, /*with_texts=*/true);
}

absl::StatusOr<SweepData> ControlStore::LoadSweep(int64_t sweep_row_id) {
  SweepData data;
  ASSAY_ASSIGN_OR_RETURN(data.sweep, LoadSweepRow(connection_.get(), sweep_row_id));
  ASSAY_ASSIGN_OR_RETURN(data.cells, LoadSweepCells(connection_.get(), sweep_row_id));
  return data;
}

absl::StatusOr<ControlSnapshot> ControlStore::LoadAll() {
  Connection* const db = connection_.get();
  ControlSnapshot snapshot;
  std::vector<int64_t> sweep_ids;
  {
    ASSAY_ASSIGN_OR_RETURN(Statement statement,
                           db->Prepare("SELECT id FROM sweep WHERE state <= 2 ORDER BY id"));
    while (true) {
      ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
      if (!more) break;
      Row(statement).Read(&sweep_ids.emplace_back());
    }
  }
  std::set<int64_t> cell_ids;
  for (const int64_t sweep_id : sweep_ids) {
    ASSAY_ASSIGN_OR_RETURN(SweepData sweep, LoadSweep(sweep_id));
    for (const SweepCellRecord& cell : sweep.cells) cell_ids.insert(cell.cell_id);
    snapshot.sweeps.push_back(std::move(sweep));
  }
  std::set<int64_t> artifact_ids;
  for (const int64_t cell_id : cell_ids) {
    ASSAY_ASSIGN_OR_RETURN(CellData data, LoadCellData(cell_id));
    if (data.artifact.has_value()) artifact_ids.insert(data.artifact->id);
    const int64_t benchmark_id = data.benchmark.id;
    if (!snapshot.items.contains(benchmark_id)) {
      ASSAY_ASSIGN_OR_RETURN(snapshot.items[benchmark_id], LoadItems(benchmark_id));
    }
    snapshot.cells.push_back(std::move(data));
  }
  for (const int64_t artifact_id : artifact_ids) {
    ASSAY_ASSIGN_OR_RETURN(
        Statement statement,
        db->Prepare("SELECT id FROM job WHERE artifact_id = ?1 AND state <> 3 ORDER BY id"));
    statement.Bind(artifact_id);
    while (true) {
      ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
      if (!more) break;
      int64_t job_id = 0;
      Row(statement).Read(&job_id);
      ASSAY_ASSIGN_OR_RETURN(JobRecord job, LoadJob(job_id));
      snapshot.jobs.push_back(std::move(job));
    }
  }
  ASSAY_ASSIGN_OR_RETURN(snapshot.open_leases, LoadOpenLeases(db));
  ASSAY_ASSIGN_OR_RETURN(snapshot.draining_workers, LoadWorkers(db, /*only_draining=*/true));
  return snapshot;
}

absl::StatusOr<std::vector<int64_t>> ControlStore::SettledSweepsOf(const UnitId& unit) {
  constexpr char kSql[] =
      "SELECT s.id FROM sweep_cell AS sc JOIN sweep AS s ON s.id = sc.sweep_id"
      " WHERE sc.cell_id = ?1 AND sc.num_items > ?2 AND sc.num_repeats > ?3 AND s.state IN (4, 5)"
      " ORDER BY s.id";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, connection_->Prepare(kSql));
  statement.Bind(unit.cell_id, unit.item_index, unit.repeat);
  std::vector<int64_t> sweeps;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return sweeps;
    Row(statement).Read(&sweeps.emplace_back());
  }
}

absl::StatusOr<int64_t> ControlStore::FindCellByKey(const std::string& cell_key) {
  return storage::FindCellByKey(connection_.get(), cell_key);
}

absl::StatusOr<std::optional<ArtifactRecord>> ControlStore::FindArtifactByKey(
    const std::string& key) {
  return storage::FindArtifactByKey(connection_.get(), key);
}

absl::StatusOr<std::vector<double>> ControlStore::MeanBaselineTokens(
    const std::string& model_content_hash, const std::string& benchmark_version_hash) {
  return storage::MeanBaselineTokens(connection_.get(), model_content_hash, benchmark_version_hash);
}

absl::StatusOr<std::string> ControlStore::LoadCalibration(const std::string& calibration_hash) {
  ASSAY_ASSIGN_OR_RETURN(Statement statement,
                         connection_->Prepare("SELECT body FROM calibration WHERE hash = ?1"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(calibration_hash).Step());
  if (!found) return NotFound("there is no calibration text {}", calibration_hash);
  std::string packed;
  Row(statement).Read(&packed);
  absl::StatusOr<std::string> text = DecompressText(packed);
  if (!text.ok()) {
    return DataLoss("calibration text {}: {}", calibration_hash, Message(text.status()));
  }
  return text;
}

}  // namespace assay::storage
