// Databases for benchmarks: a sweep of cells and any number of samples, written through
// `storage::ControlStore` as a coordinator would.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "storage/stores/control_store.h"

namespace assay::bench {

struct Plan {
  std::vector<int64_t> cells;
  int64_t provenance_id = 0;
};

struct PlanShape {
  std::string sweep_id = "sweep-bench";
  int num_cells = 1;
  int32_t num_items = 1;
  int32_t num_repeats = 1;
};

// A sweep of cells, the first the baseline, of one benchmark. Keys of cells begin with the sweep's
// id.
Plan WritePlan(storage::ControlStore* store, const PlanShape& shape);

// Words in random order: as hard a text for zstd as chains of thought are (2.5x).
std::string MakeText(size_t num_bytes, std::mt19937_64* random);

storage::SampleRecord MakeSample(const storage::UnitId& unit, const std::string& lease_id,
                                 const std::string& text_zstd, const std::string& token_ids_zstd,
                                 uint64_t random);
storage::LeaseRecord MakeLease(int64_t cell_id, int64_t number);

// Every unit of `plan`, one sample each, texts of one letter; cells take turns, as they do when
// several workers run.
void FillSamples(storage::ControlStore* store, const Plan& plan, const PlanShape& shape);

}  // namespace assay::bench
