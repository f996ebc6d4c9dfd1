#include "tests/simulation/workload.h"

#include <fmt/format.h>

#include <iterator>

#include "base/hash.h"
#include "coordinator/control/unit_seed.h"

namespace assay::simulation {

using coordinator::PlannedBenchmark;
using coordinator::PlannedCell;
using coordinator::PlannedSweep;

namespace {

constexpr int64_t kUnquantizedNeed = 1000;  // bytes, of a very small model

}  // namespace

Workload::Workload(uint64_t seed) : seed_(seed), random_(seed) {
  num_items_ = static_cast<int32_t>(random_.Between(3, 8));
  has_poison_ = random_.Chance(0.4);
  has_bad_artifact_ = random_.Chance(0.2);
}

PlannedSweep Workload::MakeSweep() {
  PlannedSweep plan;
  // Some sweeps in a row share cells and artifacts; then there is new work, now and then for gangs.
  const int generation = num_sweeps_ / 3;
  const int32_t gang = generation % 4 == 3 ? 2 : 1;
  const char* const numerics = generation % 4 == 1 ? "sim-2" : "sim-1";
  plan.name = fmt::format("sweep {}", ++num_sweeps_);
  plan.resolved_yaml = plan.name;
  constexpr int32_t kPriorities[] = {50, 50, 50, 80};
  plan.priority = kPriorities[random_.Index(4)];
  plan.models.push_back({.name = "model", .content_hash = Sha256Hex("model")});
  PlannedBenchmark benchmark;
  benchmark.benchmark.name = "bench";
  benchmark.benchmark.version_hash = Sha256Hex(fmt::format("bench {}", num_items_));
  benchmark.benchmark.prompt_version = "1";
  benchmark.benchmark.grader = "boxed_number";
  benchmark.benchmark.num_items = num_items_;
  for (int32_t i = 0; i < num_items_; ++i) {
    storage::ItemRecord item;
    item.item_index = i;
    item.name = fmt::format("item-{}", i);
    item.user_text = fmt::format("What is {}?", i);
    item.gold = std::to_string(i);
    benchmark.items.push_back(std::move(item));
  }
  plan.benchmarks.push_back(std::move(benchmark));

  // The baseline first, then some of four quantized cells.
  constexpr int kNumMethods = 4;
  for (int method = 0; method <= kNumMethods; ++method) {
    if (method > 0 && !random_.Chance(0.4)) continue;
    PlannedCell planned;
    storage::CellRecord& cell = planned.cell;
    cell.method.method = method == 0 ? "bf16" : "rtn";
    cell.method.bits = method == 0 ? "16-16-16" : fmt::format("{}-16-16", 8 - method);
    cell.method.parameters_json = "{}";
    cell.method.label = cell.method.method;
    cell.sampling.max_tokens = 4096;
    cell.engine_numerics_version = numerics;
    cell.sampling.seed = 42 + generation;
    cell.key = Sha256Hex(fmt::format("cell {} {}", method, generation));
    cell.tensor_parallel_size = gang;
    cell.memory_need_bytes = method == 0 ? kUnquantizedNeed : kUnquantizedNeed / 2 - method;
    cell.cpu_memory_need_bytes = 2 * cell.memory_need_bytes;
    planned.num_items = static_cast<int32_t>(random_.Between(1, num_items_));
    planned.num_repeats = static_cast<int32_t>(random_.Between(1, 3));
    if (method > 0) {
      storage::ArtifactRecord artifact;
      artifact.key = Sha256Hex(fmt::format("artifact {} {}", method, generation));
      artifact.method = cell.method;
      artifact.memory_need_bytes = method == 1 ? 0 : kUnquantizedNeed;
      planned.artifact_index = static_cast<int>(plan.artifacts.size());
      planned.baseline_index = 0;
      plan.artifacts.push_back(std::move(artifact));
      plan.calibration_jsonl.emplace_back();
    }
    plan.cells.push_back(std::move(planned));
  }
  return plan;
}

std::vector<coordinator::SlotShape> Workload::MakeSlots(int worker) {
  if (worker == 0) return {{1, 0, false, "sim-1"}, {1, 0, false, "sim-2"}, {2, 0, false, "sim-1"}};
  const coordinator::SlotShape shapes[] = {{1, 0, false, "sim-1"},
                                           {1, 0},  // does not say
                                           {1, kUnquantizedNeed, false, "sim-1"},
                                           {1, kUnquantizedNeed / 2, false, "sim-2"},
                                           {2, kUnquantizedNeed / 2, false, "sim-1"},
                                           {1, kUnquantizedNeed, /*is_cpu=*/true, "sim-1"}};
  std::vector<coordinator::SlotShape> slots;
  const int64_t num_slots = random_.Between(1, 2);
  for (int64_t i = 0; i < num_slots; ++i) slots.push_back(shapes[random_.Index(std::size(shapes))]);
  return slots;
}

storage::SampleRecord Workload::MakeSample(const coordinator::CellContext& cell,
                                           const coordinator::UnitGrant& unit) {
  const uint64_t truth = Hash64({"sample", cell.cell.key, std::to_string(unit.unit.item_index),
                                 std::to_string(unit.unit.repeat)});
  storage::SampleRecord sample;
  sample.unit = unit.unit;
  sample.epoch = unit.epoch;
  sample.seed = unit.seed;
  // The control plane moves texts as bytes and never looks inside.
  sample.text_zstd = fmt::format("text {:016x}", truth);
  sample.token_ids_zstd = fmt::format("ids {:016x}", truth);
  sample.prompt_sha256 = std::string(32, 'p');
  sample.prompt_tokens = 10;
  sample.completion_tokens = static_cast<int64_t>(100 + truth % 3000);
  sample.finish_reason = 1;
  sample.e2e_us = 1000;
  const auto verdict = static_cast<int32_t>(1 + truth % 2);
  sample.grade = storage::GradeRecord{"boxed_number", "1", verdict, unit.gold, "", 5};
  return sample;
}

uint64_t Workload::Fingerprint(const storage::SampleRecord& sample) {
  return Hash64({sample.text_zstd, sample.token_ids_zstd, sample.prompt_sha256,
                 std::to_string(sample.completion_tokens), std::to_string(sample.seed)});
}

bool Workload::IsPoison(const std::string& cell_key, int32_t item_index) const {
  return has_poison_ &&
         Hash64({"poison", std::to_string(seed_), cell_key, std::to_string(item_index)}) % 12 == 0;
}

bool Workload::IsBadArtifact(const std::string& artifact_key) const {
  return has_bad_artifact_ && Hash64({"artifact", std::to_string(seed_), artifact_key}) % 3 == 0;
}

}  // namespace assay::simulation
