// The seed of a unit: the same for every method, so that arms are paired.
#pragma once

#include <cstdint>
#include <string>

#include "base/hash.h"
#include "coordinator/control/messages.h"

namespace assay::coordinator {

// The same for every method, so that the arms of a comparison are paired.
inline uint64_t UnitSeed(const CellContext& cell, const std::string& item, int32_t repeat) {
  return Hash64({"assay-unit-seed-1", std::to_string(cell.cell.sampling.seed), cell.benchmark.name,
                 item, std::to_string(repeat)});
}

}  // namespace assay::coordinator
