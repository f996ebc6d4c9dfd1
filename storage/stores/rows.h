// Single rows by id, as both stores read them. NOT_FOUND names table and id.
#pragma once

#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <vector>

#include "storage/sqlite/connection.h"
#include "storage/stores/records.h"

namespace assay::storage {

absl::StatusOr<ModelRecord> LoadModel(sqlite::Connection* db, int64_t id);
absl::StatusOr<BenchmarkRecord> LoadBenchmark(sqlite::Connection* db, int64_t id);
absl::StatusOr<MethodRecord> LoadMethod(sqlite::Connection* db, int64_t id);
absl::StatusOr<ArtifactRecord> LoadArtifact(sqlite::Connection* db, int64_t id);
absl::StatusOr<CellRecord> LoadCell(sqlite::Connection* db, int64_t id);
absl::StatusOr<SweepRecord> LoadSweepRow(sqlite::Connection* db, int64_t id);

absl::StatusOr<std::optional<ArtifactRecord>> FindArtifactByKey(sqlite::Connection* db,
                                                                const std::string& key);
// 0 when there is none.
absl::StatusOr<int64_t> FindCellByKey(sqlite::Connection* db, const std::string& key);

// In position order.
absl::StatusOr<std::vector<SweepCellRecord>> LoadSweepCells(sqlite::Connection* db,
                                                            int64_t sweep_row_id);
// In item order; question and user_text stay empty unless asked for.
absl::StatusOr<std::vector<ItemRecord>> LoadItems(sqlite::Connection* db, int64_t benchmark_id,
                                                  bool with_texts);
// Draining ones only, or all.
absl::StatusOr<std::vector<WorkerRecord>> LoadWorkers(sqlite::Connection* db, bool only_draining);

absl::StatusOr<std::vector<double>> MeanBaselineTokens(sqlite::Connection* db,
                                                       const std::string& model_content_hash,
                                                       const std::string& benchmark_version_hash);
absl::StatusOr<std::string> GetMeta(sqlite::Connection* db, const std::string& key);

// Of the file and its WAL.
int64_t FileBytes(const std::string& path);

}  // namespace assay::storage
