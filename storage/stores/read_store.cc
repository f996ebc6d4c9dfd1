// Opening, snapshots, sweeps and cells; samples are in read_samples.cc.
#include "storage/stores/read_store.h"

#include <limits>

#include "base/names.h"
#include "base/status.h"
#include "storage/schema/migrator.h"
#include "storage/sqlite/connection.h"
#include "storage/sqlite/transaction.h"
#include "storage/stores/read_scope.h"
#include "storage/stores/rows.h"

namespace assay::storage {

using sqlite::Connection;
using sqlite::Row;
using sqlite::Statement;
using sqlite::Transaction;

namespace {

constexpr int32_t kNoLimit = std::numeric_limits<int32_t>::max();

// Counts of the cell's units among its first items and repeats.
absl::StatusOr<CellCounts> LoadCounts(Connection* db, int64_t cell_id, int32_t num_items,
                                      int32_t num_repeats) {
  constexpr char kSql[] =
      "SELECT sum(state = 3), sum(state = 2), sum(state = 4), sum(num_grants > 1),"
      "       sum(verdict BETWEEN 1 AND 3), sum(verdict = 1), sum(verdict = 4),"
      "       sum(finish_reason IN (2, 3)), sum(completion_tokens)"
      "  FROM unit WHERE cell_id = ?1 AND item_index < ?2 AND repeat < ?3";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kSql));
  statement.Bind(cell_id, num_items, num_repeats);
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Step());
  ASSAY_CHECK(found, "an aggregate without a row");
  CellCounts counts;
  Row(statement)
      .Read(&counts.num_done, &counts.num_leased, &counts.num_quarantined, &counts.num_rerolls)
      .Read(&counts.num_graded, &counts.num_correct, &counts.num_ungradable)
      .Read(&counts.num_truncated, &counts.completion_tokens);
  return counts;
}

// All but the counts.
absl::StatusOr<CellSummary> LoadNames(Connection* db, int64_t cell_id) {
  CellSummary summary;
  ASSAY_ASSIGN_OR_RETURN(summary.cell, LoadCell(db, cell_id));
  ASSAY_ASSIGN_OR_RETURN(summary.model, LoadModel(db, summary.cell.model_id));
  ASSAY_ASSIGN_OR_RETURN(summary.benchmark, LoadBenchmark(db, summary.cell.benchmark_id));
  if (summary.cell.artifact_id != 0) {
    ASSAY_ASSIGN_OR_RETURN(summary.artifact, LoadArtifact(db, summary.cell.artifact_id));
    ASSAY_ASSIGN_OR_RETURN(
        Statement statement,
        db->Prepare("SELECT error FROM job WHERE artifact_id = ?1 AND state = 4"));
    ASSAY_ASSIGN_OR_RETURN(const bool failed, statement.Bind(summary.cell.artifact_id).Step());
    if (failed) Row(statement).Read(&summary.job_error);
  }
  return summary;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReadStore>> ReadStore::Open(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<Connection> connection, Connection::OpenReader(path));
  ASSAY_RETURN_IF_ERROR(CheckSchemaVersion(connection.get()));
  return std::unique_ptr<ReadStore>(new ReadStore(std::move(connection)));
}

ReadStore::ReadStore(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}

ReadStore::~ReadStore() = default;

ReadStore::Snapshot::Snapshot(std::unique_ptr<Transaction> transaction)
    : transaction_(std::move(transaction)) {}
ReadStore::Snapshot::Snapshot(Snapshot&&) noexcept = default;
ReadStore::Snapshot::~Snapshot() = default;

absl::StatusOr<ReadStore::Snapshot> ReadStore::TakeSnapshot() {
  ASSAY_ASSIGN_OR_RETURN(Transaction transaction,
                         Transaction::Begin(connection_.get(), Transaction::Kind::kRead));
  return Snapshot(std::make_unique<Transaction>(std::move(transaction)));
}

absl::StatusOr<std::vector<SweepRecord>> ReadStore::ListSweeps(int32_t limit, int64_t before_id) {
  ASSAY_ASSIGN_OR_RETURN(const ReadScope scope, ReadScope::Open(connection_.get()));
  ASSAY_ASSIGN_OR_RETURN(
      Statement statement,
      connection_->Prepare(
          "SELECT id FROM sweep WHERE ?1 = 0 OR id < ?1 ORDER BY id DESC LIMIT ?2"));
  statement.Bind(before_id, limit);
  std::vector<SweepRecord> sweeps;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return sweeps;
    int64_t id = 0;
    Row(statement).Read(&id);
    ASSAY_ASSIGN_OR_RETURN(SweepRecord sweep, LoadSweepRow(connection_.get(), id));
    sweeps.push_back(std::move(sweep));
  }
}

absl::StatusOr<SweepRecord> ReadStore::FindSweep(const std::string& id_or_prefix) {
  constexpr std::string_view kPrefix = "sweep-";
  if (id_or_prefix.empty() || id_or_prefix == kPrefix) {
    return InvalidArgument("no sweep id was given; `assay sweep ls` lists them");
  }
  const std::string prefix =
      id_or_prefix.starts_with(kPrefix) ? id_or_prefix : std::string(kPrefix) + id_or_prefix;
  ASSAY_ASSIGN_OR_RETURN(const ReadScope scope, ReadScope::Open(connection_.get()));
  ASSAY_ASSIGN_OR_RETURN(Statement statement,
                         connection_->Prepare("SELECT id, public_id FROM sweep ORDER BY id DESC"));
  std::vector<int64_t> ids;
  std::vector<std::string> matches;
  std::vector<std::string> all;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) break;
    int64_t id = 0;
    std::string& public_id = all.emplace_back();
    Row(statement).Read(&id, &public_id);
    if (public_id == prefix || public_id == id_or_prefix) {
      return LoadSweepRow(connection_.get(), id);
    }
    if (public_id.starts_with(prefix)) {
      ids.push_back(id);
      matches.push_back(public_id);
    }
  }
  if (ids.empty()) {
    return NotFound("there is no sweep '{}'{}; `assay sweep ls` lists them", id_or_prefix,
                    DidYouMean(prefix, all));
  }
  if (ids.size() > 1) {
    return InvalidArgument("'{}' is the beginning of {} sweeps ({}, {}, ...): give more of the id",
                           id_or_prefix, ids.size(), matches[0], matches[1]);
  }
  return LoadSweepRow(connection_.get(), ids[0]);
}

absl::StatusOr<std::vector<SweepCellSummary>> ReadStore::SweepCells(int64_t sweep_row_id,
                                                                    bool with_counts) {
  ASSAY_ASSIGN_OR_RETURN(const ReadScope scope, ReadScope::Open(connection_.get()));
  ASSAY_ASSIGN_OR_RETURN(const std::vector<SweepCellRecord> places,
                         LoadSweepCells(connection_.get(), sweep_row_id));
  std::vector<SweepCellSummary> cells;
  for (const SweepCellRecord& place : places) {
    SweepCellSummary& cell = cells.emplace_back();
    cell.place = place;
    ASSAY_ASSIGN_OR_RETURN(cell.cell, LoadNames(connection_.get(), place.cell_id));
    if (!with_counts) continue;
    ASSAY_ASSIGN_OR_RETURN(cell.cell.counts, LoadCounts(connection_.get(), place.cell_id,
                                                        place.num_items, place.num_repeats));
  }
  return cells;
}

absl::StatusOr<CellSummary> ReadStore::GetCell(int64_t cell_id) {
  ASSAY_ASSIGN_OR_RETURN(const ReadScope scope, ReadScope::Open(connection_.get()));
  ASSAY_ASSIGN_OR_RETURN(CellSummary cell, LoadNames(connection_.get(), cell_id));
  ASSAY_ASSIGN_OR_RETURN(cell.counts, LoadCounts(connection_.get(), cell_id, kNoLimit, kNoLimit));
  return cell;
}

absl::StatusOr<std::vector<UnitOutcome>> ReadStore::Outcomes(int64_t cell_id, int32_t num_items,
                                                             int32_t num_repeats) {
  constexpr char kSql[] =
      "SELECT sample_id, item_index, repeat, verdict, finish_reason, completion_tokens, epoch"
      "  FROM unit WHERE cell_id = ?1 AND item_index < ?2 AND repeat < ?3 AND state = 3"
      " ORDER BY item_index, repeat";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, connection_->Prepare(kSql));
  statement.Bind(cell_id, num_items > 0 ? num_items : kNoLimit,
                 num_repeats > 0 ? num_repeats : kNoLimit);
  std::vector<UnitOutcome> outcomes;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return outcomes;
    UnitOutcome& outcome = outcomes.emplace_back();
    int32_t finish_reason = 0;
    int64_t epoch = 0;
    Row(statement).Read(&outcome.sample_id, &outcome.item_index, &outcome.repeat, &outcome.verdict,
                        &finish_reason, &outcome.completion_tokens, &epoch);
    outcome.truncated = finish_reason == kFinishLength || finish_reason == kFinishContext;
    outcome.rerolled = epoch > 1;
  }
}

absl::StatusOr<std::vector<ItemRecord>> ReadStore::Items(int64_t benchmark_id, bool with_texts) {
  return LoadItems(connection_.get(), benchmark_id, with_texts);
}

absl::StatusOr<std::optional<BenchmarkRecord>> ReadStore::FindBenchmark(
    const std::string& version_hash) {
  ASSAY_ASSIGN_OR_RETURN(Statement statement,
                         connection_->Prepare("SELECT id FROM benchmark WHERE version_hash = ?1"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(version_hash).Step());
  if (!found) return std::nullopt;
  int64_t id = 0;
  Row(statement).Read(&id);
  ASSAY_ASSIGN_OR_RETURN(BenchmarkRecord benchmark, LoadBenchmark(connection_.get(), id));
  return benchmark;
}

absl::StatusOr<std::optional<ArtifactRecord>> ReadStore::FindArtifact(const std::string& key) {
  return FindArtifactByKey(connection_.get(), key);
}

absl::StatusOr<int64_t> ReadStore::NumCachedUnits(const std::string& cell_key, int32_t num_items,
                                                  int32_t num_repeats) {
  ASSAY_ASSIGN_OR_RETURN(
      Statement statement,
      connection_->Prepare(
          "SELECT count(*) FROM unit WHERE cell_id = (SELECT id FROM cell WHERE key = ?1)"
          "   AND item_index < ?2 AND repeat < ?3 AND state = 3"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(cell_key, num_items, num_repeats).Step());
  ASSAY_CHECK(found, "an aggregate without a row");
  int64_t num_units = 0;
  Row(statement).Read(&num_units);
  return num_units;
}

absl::StatusOr<std::vector<double>> ReadStore::MeanBaselineTokens(
    const std::string& model_content_hash, const std::string& benchmark_version_hash) {
  return storage::MeanBaselineTokens(connection_.get(), model_content_hash, benchmark_version_hash);
}

absl::StatusOr<std::vector<EventRecord>> ReadStore::Events(int64_t after_id,
                                                           const std::string& sweep_id,
                                                           int32_t limit) {
  constexpr char kAll[] =
      "SELECT id, time_us, kind, sweep_id, cell_id, worker_id, detail FROM event"
      " WHERE id > ?1 ORDER BY id LIMIT ?2";
  constexpr char kOfSweep[] =
      "SELECT id, time_us, kind, sweep_id, cell_id, worker_id, detail FROM event"
      " WHERE id > ?1 AND sweep_id = ?3 ORDER BY id LIMIT ?2";
  ASSAY_ASSIGN_OR_RETURN(Statement statement,
                         connection_->Prepare(sweep_id.empty() ? kAll : kOfSweep));
  if (sweep_id.empty()) {
    statement.Bind(after_id, limit);
  } else {
    statement.Bind(after_id, limit, sweep_id);
  }
  std::vector<EventRecord> events;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return events;
    EventRecord& event = events.emplace_back();
    Row(statement).Read(&event.id, &event.time_us, &event.kind, &event.sweep_id, &event.cell_id,
                        &event.worker_id, &event.detail_json);
  }
}

absl::StatusOr<int64_t> ReadStore::LastEventId() {
  return connection_->QueryInteger("SELECT coalesce(max(id), 0) FROM event");
}

absl::StatusOr<std::vector<WorkerRecord>> ReadStore::Workers() {
  return LoadWorkers(connection_.get(), /*only_draining=*/false);
}

absl::StatusOr<int64_t> ReadStore::NumSamples() {
  return connection_->QueryInteger("SELECT count(*) FROM sample");
}

absl::StatusOr<std::string> ReadStore::GetMeta(const std::string& key) {
  return storage::GetMeta(connection_.get(), key);
}

absl::StatusOr<int64_t> ReadStore::DatabaseBytes() { return FileBytes(connection_->path()); }

absl::StatusOr<StoreTotals> ReadStore::Totals() {
  ASSAY_ASSIGN_OR_RETURN(const ReadScope scope, ReadScope::Open(connection_.get()));
  StoreTotals totals;
  ASSAY_ASSIGN_OR_RETURN(totals.num_samples, NumSamples());
  ASSAY_ASSIGN_OR_RETURN(totals.num_quarantined,
                         connection_->QueryInteger("SELECT count(*) FROM unit WHERE state = 4"));
  ASSAY_ASSIGN_OR_RETURN(Statement statement,
                         connection_->Prepare("SELECT state, count(*) FROM sweep GROUP BY state"));
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) break;
    SweepState state{};
    int64_t count = 0;
    Row(statement).Read(&state, &count);
    totals.num_sweeps[state] = count;
  }
  totals.wal_bytes = FileBytes(connection_->path() + "-wal");
  totals.database_bytes = FileBytes(connection_->path()) - totals.wal_bytes;
  return totals;
}

}  // namespace assay::storage
