// The read side of the database, for reports and for people: a read-only connection of its own, so
// that no question ever waits for the control plane or makes it wait.
//
// Each method reads one consistent state. Several calls see the same state while a Snapshot lives;
// keep it short, because the WAL cannot be emptied beyond the oldest reader (measured: 324 MB after
// one long read).
//
// Errors of every method: UNAVAILABLE (file gone or unreadable), DATA_LOSS (damaged), NOT_FOUND
// where an id names nothing. Thread-compatible: one per reading thread.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "storage/stores/records.h"
#include "storage/stores/results.h"
#include "storage/stores/snapshot.h"

namespace assay::storage {

namespace sqlite {
class Connection;
class Transaction;
}  // namespace sqlite

class ReadStore {
 public:
  // NOT_FOUND when there is no such file; INVALID_ARGUMENT when it is not an Assay database or made
  // by a newer version.
  static absl::StatusOr<std::unique_ptr<ReadStore>> Open(const std::string& path);
  ~ReadStore();
  ReadStore(const ReadStore&) = delete;
  ReadStore& operator=(const ReadStore&) = delete;

  // While it lives, every call sees the state of the first call after its making. Must not outlive
  // the store; one at a time.
  class Snapshot {
   public:
    Snapshot(Snapshot&&) noexcept;
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;
    Snapshot& operator=(Snapshot&&) = delete;
    ~Snapshot();

   private:
    friend class ReadStore;
    explicit Snapshot(std::unique_ptr<sqlite::Transaction> transaction);

    std::unique_ptr<sqlite::Transaction> transaction_;
  };
  absl::StatusOr<Snapshot> TakeSnapshot();

  // Sweeps --------------------------------------------------------------------------------------

  // Newest first. `before_id` is the last row id of the page before, 0 for the first page.
  absl::StatusOr<std::vector<SweepRecord>> ListSweeps(int32_t limit, int64_t before_id);
  // By id or by a prefix of it, with or without "sweep-". NOT_FOUND names the nearest ids;
  // INVALID_ARGUMENT when several sweeps begin so.
  absl::StatusOr<SweepRecord> FindSweep(const std::string& id_or_prefix);
  // In position order. Counting reads every unit; whoever reads the outcomes does without, and the
  // counts are zeros.
  absl::StatusOr<std::vector<SweepCellSummary>> SweepCells(int64_t sweep_row_id,
                                                           bool with_counts = true);

  // Cells ---------------------------------------------------------------------------------------

  // Over all samples of the cell, whichever sweep wanted them.
  absl::StatusOr<CellSummary> GetCell(int64_t cell_id);
  // For statistics: the cell's samples with item_index < num_items and repeat < num_repeats (0 is
  // no limit), in (item_index, repeat) order.
  absl::StatusOr<std::vector<UnitOutcome>> Outcomes(int64_t cell_id, int32_t num_items = 0,
                                                    int32_t num_repeats = 0);
  // Position i holds item_index i. Texts are empty unless asked for.
  absl::StatusOr<std::vector<ItemRecord>> Items(int64_t benchmark_id, bool with_texts = false);
  absl::StatusOr<std::optional<BenchmarkRecord>> FindBenchmark(const std::string& version_hash);

  // Plans: what is stored already -----------------------------------------------------------------

  absl::StatusOr<std::optional<ArtifactRecord>> FindArtifact(const std::string& key);
  // Samples of the cell with this key among its first items and repeats; 0 when there is none.
  absl::StatusOr<int64_t> NumCachedUnits(const std::string& cell_key, int32_t num_items,
                                         int32_t num_repeats);
  // As in ControlStore.
  absl::StatusOr<std::vector<double>> MeanBaselineTokens(const std::string& model_content_hash,
                                                         const std::string& benchmark_version_hash);

  // Samples -------------------------------------------------------------------------------------

  absl::StatusOr<SamplePage> ListSamples(const SampleQuery& query);
  absl::StatusOr<SampleDetail> GetSample(int64_t sample_id);
  // NOT_FOUND when that unit has no sample.
  absl::StatusOr<int64_t> FindSample(int64_t cell_id, int32_t item_index, int32_t repeat);

  // The rest ------------------------------------------------------------------------------------

  // Oldest first, ids above `after_id`; of one sweep when `sweep_id` is not empty.
  absl::StatusOr<std::vector<EventRecord>> Events(int64_t after_id, const std::string& sweep_id,
                                                  int32_t limit);
  absl::StatusOr<int64_t> LastEventId();
  absl::StatusOr<std::vector<WorkerRecord>> Workers();
  absl::StatusOr<int64_t> NumSamples();
  absl::StatusOr<std::string> GetMeta(const std::string& key);  // absent is empty
  absl::StatusOr<int64_t> DatabaseBytes();                      // with its WAL
  absl::StatusOr<StoreTotals> Totals();

 private:
  explicit ReadStore(std::unique_ptr<sqlite::Connection> connection);

  const std::unique_ptr<sqlite::Connection> connection_;
};

}  // namespace assay::storage
