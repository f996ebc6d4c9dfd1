// How fast the store is:
//
//   store_bench DIR             durable samples/s with texts of 30 KB, in batches of 1, 8 and 64
//   store_bench DIR NUM_ROWS    a database of so many samples, and the time of each view on it
//
// DIR must exist; the databases made in it stay. For numbers that mean something DIR is on the disk
// that a coordinator would use, not on a tmpfs.
#include <fmt/format.h>

#include <random>
#include <string>
#include <vector>

#include "storage/sqlite/query_runner.h"
#include "storage/stores/control_store.h"
#include "storage/stores/read_store.h"
#include "storage/text/text_codec.h"
#include "tests/bench/bench_clock.h"
#include "tests/bench/filled_store.h"

namespace assay::bench {
namespace {

using storage::CompressText;
using storage::CompressTokenIds;
using storage::ControlSnapshot;
using storage::ControlStore;
using storage::InsertOutcome;
using storage::ReadStore;
using storage::SampleFilter;
using storage::SamplePage;
using storage::SampleQuery;
using storage::SweepRecord;
using storage::UnitId;
namespace sqlite = storage::sqlite;

// Prints wall and CPU time of a piece of work.
class Stopwatch {
 public:
  std::string Read() const {
    return fmt::format("{:8.3f} s ({:.3f} s CPU)", Seconds() - wall_, CpuSeconds() - cpu_);
  }

 private:
  double wall_ = Seconds();
  double cpu_ = CpuSeconds();
};

void MeasureInserts(const std::string& dir) {
  constexpr int32_t kNumItems = 4096;
  constexpr double kSecondsPerBatchSize = 4;
  std::mt19937_64 random(7);
  std::vector<std::string> texts;
  std::vector<std::string> ids;
  int64_t text_bytes = 0;
  int64_t packed_bytes = 0;
  for (int i = 0; i < 64; ++i) {
    const std::string text = MakeText(30'000, &random);
    std::vector<int32_t> tokens(7'500);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 4'000);
    texts.push_back(CompressText(text));
    ids.push_back(CompressTokenIds(tokens));
    text_bytes += static_cast<int64_t>(text.size());
    packed_bytes += static_cast<int64_t>(texts.back().size());
  }
  fmt::print("texts of {} bytes, packed to {} ({:.2f}x), and {} bytes of packed ids\n",
             text_bytes / 64, packed_bytes / 64,
             static_cast<double>(text_bytes) / static_cast<double>(packed_bytes), ids[0].size());
  for (const int batch_size : {1, 8, 64}) {
    const std::string path = fmt::format("{}/insert-{}.db", dir, batch_size);
    const std::unique_ptr<ControlStore> store = Must(ControlStore::Open(path));
    const Plan plan = WritePlan(store.get(), {.num_items = kNumItems, .num_repeats = 64});
    int64_t num_samples = 0;
    const double start = Seconds();
    const double cpu_start = CpuSeconds();
    double end = start;
    while (end - start < kSecondsPerBatchSize && num_samples < kNumItems * 64) {
      // Grants are part of the work: one lease for each batch of 64.
      if (num_samples % 64 == 0) {
        std::vector<UnitId> units;
        for (int64_t i = num_samples; i < num_samples + 64; ++i) {
          units.push_back({plan.cells[0], static_cast<int32_t>(i % kNumItems),
                           static_cast<int32_t>(i / kNumItems)});
        }
        Must(store->Begin());
        Must(store->GrantUnits(MakeLease(plan.cells[0], num_samples / 64), plan.provenance_id,
                               units));
        Must(store->Commit());
      }
      Must(store->Begin());
      const std::string lease_id = MakeLease(plan.cells[0], num_samples / 64).lease_id;
      for (int i = 0; i < batch_size; ++i, ++num_samples) {
        const UnitId unit = {plan.cells[0], static_cast<int32_t>(num_samples % kNumItems),
                             static_cast<int32_t>(num_samples / kNumItems)};
        const size_t which = static_cast<size_t>(num_samples % 64);
        const auto inserted = Must(
            store->InsertSample(MakeSample(unit, lease_id, texts[which], ids[which], random()), 1));
        ASSAY_CHECK(inserted.outcome == InsertOutcome::kAccepted, "sample {}", num_samples);
      }
      Must(store->Commit());
      Must(store->CheckpointIfLarge());
      end = Seconds();
    }
    Must(store->CheckpointWhenIdle());
    fmt::print(
        "batch {:2}: {:7.0f} durable samples/s, {:.0f} us CPU a sample ({} samples, {} bytes"
        " each on disk)\n",
        batch_size, static_cast<double>(num_samples) / (end - start),
        (CpuSeconds() - cpu_start) * 1e6 / static_cast<double>(num_samples), num_samples,
        Must(store->DatabaseBytes()) / num_samples);
  }
}

void MeasureViews(const std::string& dir, int64_t num_rows) {
  constexpr int32_t kNumItems = 500;
  constexpr int kNumCells = 50;
  const int32_t num_repeats =
      static_cast<int32_t>((num_rows + kNumItems * kNumCells - 1) / (kNumItems * kNumCells));
  const std::string path = dir + "/views.db";
  {
    const std::unique_ptr<ControlStore> store = Must(ControlStore::Open(path));
    if (Must(store->FindCellByKey("sweep-bench-0")) == 0) {
      const PlanShape shape = {
          .num_cells = kNumCells, .num_items = kNumItems, .num_repeats = num_repeats};
      const double start = Seconds();
      FillSamples(store.get(), WritePlan(store.get(), shape), shape);
      fmt::print("{} samples written in {:.1f} s, {} bytes\n",
                 int64_t{num_repeats} * kNumItems * kNumCells, Seconds() - start,
                 Must(store->DatabaseBytes()));
    }
    const Stopwatch watch;
    const ControlSnapshot snapshot = Must(store->LoadAll());
    fmt::print("{}  LoadAll, {} cells\n", watch.Read(), snapshot.cells.size());
  }
  const auto runner = Must(sqlite::QueryRunner::Open(path));
  const auto measure = [&](const char* sql) {
    int64_t num_rows_out = 0;
    const Stopwatch watch;
    Must(runner->Run(
        sql, {.max_rows = 1'000'000'000, .timeout = absl::Minutes(10)},
        [](const std::vector<std::string>&) { return true; },
        [&](const std::vector<sqlite::QueryValue>&) { return ++num_rows_out > 0; }));
    fmt::print("{}  {} ({} rows)\n", watch.Read(), sql, num_rows_out);
  };
  for (const char* sql :
       {"SELECT * FROM v_cell", "SELECT * FROM v_cell", "SELECT * FROM v_cell WHERE cell_id = 3",
        ("SELECT cell_id, count(*), sum(flip = 'harmful') FROM v_paired"
         " WHERE sweep_id = 'sweep-bench' GROUP BY cell_id"),
        ("SELECT correct, baseline_correct, count(*) FROM v_paired WHERE cell_id = 3"
         " GROUP BY correct, baseline_correct"),
        ("SELECT cell_id, level, count(*), sum(flip = 'harmful') FROM v_paired GROUP BY cell_id,"
         " level"),
        "SELECT * FROM v_difficulty", "SELECT * FROM v_length", "SELECT * FROM v_latency",
        "SELECT * FROM v_attempt", "SELECT * FROM v_provenance", "SELECT count(*) FROM v_sample",
        "SELECT avg(e2e_us) FROM v_sample WHERE cell_id = 3",
        "SELECT * FROM v_sample WHERE sample_id = 500000",
        "SELECT verdict, count(*) FROM v_sample GROUP BY verdict"}) {
    measure(sql);
  }
  const std::unique_ptr<ReadStore> reader = Must(ReadStore::Open(path));
  const SweepRecord sweep = Must(reader->FindSweep("sweep-bench"));
  {
    const Stopwatch watch;
    const auto cells = Must(reader->SweepCells(sweep.id));
    fmt::print("{}  SweepCells, {} cells\n", watch.Read(), cells.size());
  }
  {
    const Stopwatch watch;
    size_t num_outcomes = 0;
    for (int64_t cell_id = 1; cell_id <= kNumCells; ++cell_id) {
      num_outcomes += Must(reader->Outcomes(cell_id)).size();
    }
    fmt::print("{}  Outcomes of all cells, {} samples\n", watch.Read(), num_outcomes);
  }
  const Stopwatch watch;
  const SampleQuery query = {.sweep_row_id = sweep.id, .filter = SampleFilter::kTruncated};
  const SamplePage page = Must(reader->ListSamples(query));
  fmt::print("{}  ListSamples, a page of {}\n", watch.Read(), page.samples.size());
}

}  // namespace
}  // namespace assay::bench

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fmt::print(stderr, "usage: store_bench DIR [NUM_ROWS]\n");
    return 64;
  }
  if (argc == 2) {
    assay::bench::MeasureInserts(argv[1]);
  } else {
    assay::bench::MeasureViews(argv[1], std::stoll(argv[2]));
  }
  return 0;
}
