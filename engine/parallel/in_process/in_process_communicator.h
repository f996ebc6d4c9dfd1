// A gang of threads in one process, on host memory: for tests of what is sharded, on any machine.
// Share is a barrier.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/parallel/communicator.h"

namespace assay::engine {

// Windows are cleared. Share answers ABORTED after Abort.
Communicators MakeInProcessCommunicators(int size, const std::vector<int64_t>& window_bytes);

}  // namespace assay::engine
