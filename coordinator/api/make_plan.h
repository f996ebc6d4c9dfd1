// A spec to a plan: parsed, planned, and held against what is stored already.
#pragma once

#include <absl/status/statusor.h>

#include <string>

#include "assay/v1/sweep_service.pb.h"
#include "coordinator/api/api_context.h"
#include "coordinator/planner/plan.h"
#include "storage/stores/read_store.h"

namespace assay::coordinator {

struct MadePlan {
  PlannedSweep sweep;
  v1::Plan proto;
  std::string owner;  // as the spec says; may be empty
};

// Hashes model files when they are new, which takes as long as reading them: not on the control
// thread. The parser's and planner's errors.
absl::StatusOr<MadePlan> MakePlan(const ApiContext& api, storage::ReadStore& store,
                                  const std::string& spec_yaml, const std::string& spec_name);

}  // namespace assay::coordinator
