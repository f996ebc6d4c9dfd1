// A sweep as people see it, from the present (live) or the database (settled).
#pragma once

#include <absl/status/statusor.h>

#include <string>

#include "assay/v1/sweep_service.pb.h"
#include "coordinator/control/control_loop.h"
#include "storage/stores/read_store.h"

namespace assay::coordinator {

// By id or unique prefix. `fresh`: later than every commit before this call, for the answer to a
// mutation. FindSweep's errors. Not on the control thread.
absl::StatusOr<v1::Sweep> ReadSweep(storage::ReadStore& store, ControlLoop* loop,
                                    const std::string& sweep_id, bool with_cells, bool fresh);

// Without cells. The same, for a record already read.
absl::StatusOr<v1::Sweep> ReadSweep(storage::ReadStore& store, ControlLoop* loop,
                                    const storage::SweepRecord& record, bool with_cells,
                                    bool fresh);

}  // namespace assay::coordinator
