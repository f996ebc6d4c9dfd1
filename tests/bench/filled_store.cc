#include "tests/bench/filled_store.h"

#include <fmt/format.h>

#include "storage/text/text_codec.h"
#include "tests/bench/bench_clock.h"

namespace assay::bench {

using storage::CellRecord;
using storage::ControlStore;
using storage::ItemRecord;
using storage::LeaseRecord;
using storage::SampleRecord;
using storage::SweepCellRecord;
using storage::UnitId;

Plan WritePlan(ControlStore* store, const PlanShape& shape) {
  Plan plan;
  Must(store->Begin());
  const int64_t model = Must(store->UpsertModel({.name = "model", .content_hash = "hash"}));
  std::vector<ItemRecord> items;
  for (int32_t i = 0; i < shape.num_items; ++i) {
    items.push_back({.item_index = i,
                     .name = fmt::format("item-{:05}", i),
                     .question = std::string(200, 'q'),
                     .user_text = std::string(300, 'u'),
                     .gold = "42",
                     .level = std::to_string(1 + i % 5)});
  }
  const int64_t benchmark =
      Must(store->UpsertBenchmark({.name = "bench",
                                   .version_hash = fmt::format("hash-{}", shape.num_items),
                                   .grader = "boxed_number",
                                   .num_items = shape.num_items},
                                  items));
  std::vector<SweepCellRecord> places;
  for (int i = 0; i < shape.num_cells; ++i) {
    CellRecord cell = {.key = fmt::format("{}-{}", shape.sweep_id, i),
                       .model_id = model,
                       .benchmark_id = benchmark,
                       .method = {.method = i == 0 ? "bf16" : fmt::format("method-{}", i),
                                  .bits = "4-16-16",
                                  .label = "method"}};
    plan.cells.push_back(Must(store->UpsertCell(cell)));
    places.push_back({.position = i,
                      .cell_id = plan.cells[static_cast<size_t>(i)],
                      .num_repeats = shape.num_repeats,
                      .num_items = shape.num_items,
                      .baseline_cell_id = i == 0 ? 0 : plan.cells[0]});
  }
  plan.provenance_id = Must(store->UpsertProvenance({.git_commit = "abc", .device = "cpu"}));
  Must(store->InsertSweep({.sweep_id = shape.sweep_id}, places));
  Must(store->Commit());
  return plan;
}

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

SampleRecord MakeSample(const UnitId& unit, const std::string& lease_id,
                        const std::string& text_zstd, const std::string& token_ids_zstd,
                        uint64_t random) {
  SampleRecord sample = {.unit = unit,
                         .lease_id = lease_id,
                         .epoch = 1,
                         .text_zstd = text_zstd,
                         .token_ids_zstd = token_ids_zstd,
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
  sample.grade = storage::GradeRecord{.grader = "boxed_number",
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

void FillSamples(ControlStore* store, const Plan& plan, const PlanShape& shape) {
  std::mt19937_64 random(7);
  const std::string text = storage::CompressText("x");
  const std::string ids = storage::CompressTokenIds(std::vector<int32_t>{1});
  int64_t num_leases = 0;
  for (int32_t repeat = 0; repeat < shape.num_repeats; ++repeat) {
    for (const int64_t cell_id : plan.cells) {
      std::vector<UnitId> units;
      for (int32_t item = 0; item < shape.num_items; ++item) {
        units.push_back({cell_id, item, repeat});
      }
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
}

}  // namespace assay::bench
