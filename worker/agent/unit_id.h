// Units as keys of maps.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>

#include "assay/v1/common.pb.h"
#include "base/status.h"

namespace assay::worker {

using UnitId = std::tuple<int64_t, int32_t, int32_t>;  // cell, item, repeat

inline UnitId IdOf(const v1::UnitKey& key) {
  return {key.cell_id(), key.item_index(), key.repeat()};
}

inline std::string Describe(const v1::UnitKey& key) {
  return fmt::format("cell {} item {} repeat {}", key.cell_id(), key.item_index(), key.repeat());
}

}  // namespace assay::worker
