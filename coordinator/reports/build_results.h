// The tables and comparisons that people ask for, read from the store.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/reports/results.h"
#include "storage/stores/read_store.h"

namespace assay::coordinator {

struct SweepResults {
  std::string sweep_name;
  std::vector<ResultRow> rows;  // cells in plan order; the group "all" first, then the others
  bool complete = false;        // every planned unit has its sample
};

// `sweep_id` may be a unique prefix. `by` is "", "level", "subject" or "length". All rows are of
// one state of the store. INVALID_ARGUMENT for a wrong `by`; the store's errors else.
absl::StatusOr<SweepResults> BuildResults(storage::ReadStore& store, const std::string& sweep_id,
                                          const std::string& by);

// The cell against the baseline, on the units that both have. INVALID_ARGUMENT when they are not of
// the same benchmark version and prompt: their items are not pairs. NOT_FOUND for a wrong id.
absl::StatusOr<Comparison> BuildComparison(storage::ReadStore& store, int64_t baseline_cell_id,
                                           int64_t cell_id);

}  // namespace assay::coordinator
