// From a spec to the rows that are stored and scheduled.
//
// PlanSweep is a function of its arguments: what it needs of the world it asks through the context,
// once per model, benchmark and calibration set. As content_keys.h has it, equal
// keys are equal work, in this sweep or any other.
//
// Order of the cells: per model, per benchmark, the bf16 baseline first, then the methods in the
// order of the spec.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/model_files.h"
#include "base/numerics_version.h"
#include "coordinator/planner/benchmark_file.h"
#include "coordinator/planner/calibration_file.h"
#include "coordinator/planner/memory_need.h"
#include "coordinator/planner/plan.h"
#include "coordinator/spec/sweep_spec.h"

namespace assay::coordinator {

struct PlannerContext {
  // The content hash of a model, by what is looked up under the model roots.
  std::function<absl::StatusOr<std::string>(const std::string& model)> model_hash;

  // All items of a benchmark, before `limit` and `per_level`.
  std::function<absl::StatusOr<std::vector<BenchmarkItem>>(const BenchmarkSpec&)> benchmark_items;

  std::function<absl::StatusOr<CalibrationSet>(const std::string& name)> calibration_set;

  // What is known of a model's answers on a benchmark: mean tokens by item index, 0 where nothing
  // is known; empty when nothing at all is (the store's MeanBaselineTokens). May be left empty.
  std::function<std::vector<double>(const std::string& model_hash,
                                    const std::string& benchmark_version)>
      mean_item_tokens;

  // What the model's config.json says of its size. May be left empty; where it fails, the plan
  // warns and the model's needs are not known.
  std::function<absl::StatusOr<ModelDimensions>(const std::string& model)> model_dimensions;

  // Of the engine on each device that a sweep may name.
  std::string cpu_numerics_version = kCpuNumericsVersion;
  std::string cuda_numerics_version = kCudaNumericsVersion;
  std::string quantizer_version = "quant-1";
};

// The files of this machine: roots as the coordinator's flags give them. `hasher` outlives the
// context.
struct PlannerRoots {
  std::vector<std::string> models;
  std::vector<std::string> benchmarks;
  std::vector<std::string> calibration;
};
PlannerContext FileContext(PlannerRoots roots, ModelHasher* hasher);

// INVALID_ARGUMENT or NOT_FOUND, beginning with file, line and column of the entry that cannot be
// planned.
absl::StatusOr<PlannedSweep> PlanSweep(const SweepSpec& spec, const PlannerContext& context);

}  // namespace assay::coordinator
