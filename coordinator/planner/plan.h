// What a spec comes to: the rows that the control plane stores and schedules.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "storage/stores/records.h"

namespace assay::coordinator {

struct PlannedBenchmark {
  storage::BenchmarkRecord benchmark;
  std::vector<storage::ItemRecord> items;
};

// One cell of the sweep, referring to the vectors of the plan by index.
struct PlannedCell {
  storage::CellRecord cell;  // key filled in; ids are 0 until stored
  int model_index = 0;
  int benchmark_index = 0;
  int artifact_index = -1;  // -1: the model as it is
  int baseline_index = -1;  // position of its bf16 cell; -1: it is the baseline
  int32_t num_repeats = 1;
  int32_t num_items = 0;
  int64_t expected_tokens = 0;  // of the whole cell
};

struct PlannedSweep {
  std::string name;
  int32_t priority = 50;
  std::string resolved_yaml;
  std::vector<storage::ModelRecord> models;
  std::vector<PlannedBenchmark> benchmarks;
  std::vector<storage::ArtifactRecord> artifacts;
  std::vector<std::string> calibration_jsonl;  // per artifact; empty when it needs none
  std::vector<PlannedCell> cells;              // baseline first within each (model, benchmark)
  std::vector<std::string> warnings;
};

}  // namespace assay::coordinator
