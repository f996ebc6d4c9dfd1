// What test workers say over the wire.
#pragma once

#include <cstdint>
#include <string>

#include "assay/v1/worker_service.pb.h"

namespace assay::testing {

// A sample that passes every check of a report, of the unit under the lease and epoch and with the
// seed given; `text` and `num_tokens` ids are packed as a worker packs them. No grade.
v1::Sample MakeSample(const v1::UnitKey& unit, const std::string& lease_id, int64_t epoch,
                      uint64_t seed, const std::string& text, int num_tokens = 3);

}  // namespace assay::testing
