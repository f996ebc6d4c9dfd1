// How fast the store is:
//
//   store_bench DIR             durable samples/s with texts of 30 KB, in batches of 1, 8 and 64
//   store_bench DIR NUM_ROWS    a database of so many samples, and the time of each view on it
//
// DIR must exist; the databases made in it stay. For numbers that mean something DIR is on the disk
// that a coordinator would use, not on a tmpfs.
#include <fmt/format.h>
#include <time.h>

#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "storage/sqlite/query_runner.h"
#include "storage/stores/control_store.h"
#include "storage/stores/read_store.h"
#include "storage/text/text_codec.h"

namespace assay::storage {
namespace {

template <typename T>
T Must(absl::StatusOr<T> result) {
  ASSAY_CHECK(result.ok(), "{}", Message(result.status()));
  return *std::move(result);
}
void Must(const absl::Status& status) { ASSAY_CHECK(status.ok(), "{}", Message(status)); }

double Seconds() { return absl::ToDoubleSeconds(RealClock::Get()->Monotonic()); }

// Of this process: on a busy machine it says more than the wall clock.
double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

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

// Words in random order: as pessimistic a text for zstd as orchestration.md's (2.5x).
std::string MakeText(size_t num_bytes, std::mt19937_64* random) {
  static const std::vector<std::string> words = [] {
    std::mt19937_64 letters(1);
    std::vector<std::string> made(4000);
    for (std::string& word : made) {
      const size_t size = 2 + letters() % 8;
      for (size_t i = 0; i < size; ++i) word += static_cast<char>('a' + letters() % 26);
    }
    return made;
  }();
  std::string text;
  while (text.size() < num_bytes) {
    text += words[(*random)() % words.size()];
    text += ' ';
  }
  return text;
}

// A sweep of `num_cells` cells, the first the baseline, of one benchmark.
struct Plan {
  std::vector<int64_t> cells;
  int64_t provenance_id = 0;
};

Plan WritePlan(ControlStore* store, int num_cells, int32_t num_items, int32_t num_repeats) {
  Plan plan;
  Must(store->Begin());
  const int64_t model = Must(store->UpsertModel({.name = "model", .content_hash = "hash"}));
  std::vector<ItemRecord> items;
  for (int32_t i = 0; i < num_items; ++i) {
    items.push_back({.item_index = i,
                     .name = fmt::format("item-{:05}", i),
                     .question = std::string(200, 'q'),
                     .user_text = std::string(300, 'u'),
                     .gold = "42",
                     .level = std::to_string(1 + i % 5)});
  }
  const int64_t benchmark = Must(store->UpsertBenchmark(
      {.name = "bench", .version_hash = "hash", .grader = "boxed_number", .num_items = num_items},
      items));
  std::vector<SweepCellRecord> places;
  for (int i = 0; i < num_cells; ++i) {
    CellRecord cell = {.key = fmt::format("key-{}", i),
                       .model_id = model,
                       .benchmark_id = benchmark,
                       .method = {.method = i == 0 ? "bf16" : fmt::format("method-{}", i),
                                  .bits = "4-16-16",
                                  .label = "method"}};
    plan.cells.push_back(Must(store->UpsertCell(cell)));
    places.push_back({.position = i,
                      .cell_id = plan.cells[static_cast<size_t>(i)],
                      .num_repeats = num_repeats,
                      .num_items = num_items,
                      .baseline_cell_id = i == 0 ? 0 : plan.cells[0]});
  }
  plan.provenance_id = Must(store->UpsertProvenance({.git_commit = "abc", .device = "cpu"}));
  Must(store->InsertSweep({.sweep_id = "sweep-bench"}, places));
  Must(store->Commit());
  return plan;
}

SampleRecord MakeSample(const UnitId& unit, const std::string& lease_id, const std::string& text,
                        const std::string& ids, uint64_t random) {
  SampleRecord sample = {.unit = unit,
                         .lease_id = lease_id,
                         .epoch = 1,
                         .text_zstd = text,
                         .token_ids_zstd = ids,
                         .prompt_sha256 = std::string(32, 'p'),
                         .prompt_tokens = 100,
                         .completion_tokens = static_cast<int64_t>(100 + random % 10'000),
                         .thinking_tokens = 90,
                         .finish_reason = random % 10 == 0 ? 2 : 1,
                         .seed = random,
                         .queue_us = 1000,
                         .ttft_us = 200'000,
                         .e2e_us = 90'000'000,
                         .mean_batch_size = 31.5,
                         .finished_time_us = 1'700'000'000'000'000};
  sample.grade = GradeRecord{.grader = "boxed_number",
                             .grader_version = "1",
                             .verdict = random % 3 == 0 ? 2 : 1,
                             .extracted = "42"};
  return sample;
}

LeaseRecord MakeLease(int64_t cell_id, int64_t number) {
  return {.lease_id = fmt::format("lease-{:012x}", number),
          .cell_id = cell_id,
          .worker_id = "worker",
          .incarnation = "incarnation",
          .granted_time_us = 1};
}

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
    const Plan plan = WritePlan(store.get(), 1, kNumItems, 64);
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
    if (Must(store->FindCellByKey("key-0")) == 0) {
      const Plan plan = WritePlan(store.get(), kNumCells, kNumItems, num_repeats);
      std::mt19937_64 random(7);
      const std::string text = CompressText("x");
      const std::string ids = CompressTokenIds(std::vector<int32_t>{1});
      const double start = Seconds();
      int64_t num_leases = 0;
      // Cells take turns, as they do when several workers run.
      for (int32_t repeat = 0; repeat < num_repeats; ++repeat) {
        for (const int64_t cell_id : plan.cells) {
          std::vector<UnitId> units;
          for (int32_t item = 0; item < kNumItems; ++item) units.push_back({cell_id, item, repeat});
          const LeaseRecord lease = MakeLease(cell_id, num_leases++);
          Must(store->Begin());
          Must(store->GrantUnits(lease, plan.provenance_id, units));
          for (const UnitId& unit : units) {
            Must(store->InsertSample(MakeSample(unit, lease.lease_id, text, ids, random()), 1));
          }
          Must(store->Commit());
          Must(store->CheckpointIfLarge());
        }
      }
      Must(store->CheckpointWhenIdle());
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
        "SELECT cell_id, count(*), sum(flip = 'harmful') FROM v_paired"
        " WHERE sweep_id = 'sweep-bench' GROUP BY cell_id",
        "SELECT correct, baseline_correct, count(*) FROM v_paired WHERE cell_id = 3"
        " GROUP BY correct, baseline_correct",
        "SELECT cell_id, level, count(*), sum(flip = 'harmful') FROM v_paired GROUP BY cell_id,"
        " level",
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
}  // namespace assay::storage

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fmt::print(stderr, "usage: store_bench DIR [NUM_ROWS]\n");
    return 64;
  }
  if (argc == 2) {
    assay::storage::MeasureInserts(argv[1]);
  } else {
    assay::storage::MeasureViews(argv[1], std::stoll(argv[2]));
  }
  return 0;
}
