// A gang whose GPUs reach each other's memory, in one process: kernels push small parts into their
// peers' inboxes, and load large ones where they are behind a barrier of their own (gang_parts.h),
// over NVLink. Share launches nothing. Plain peer access: no multicast.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "engine/parallel/communicator.h"

namespace assay::engine::cuda {

// Whether each of the devices can read the memory of every other.
bool HavePeerAccess(std::span<const int> devices);

// Of each device's memory.
int64_t PeerCommunicatorBytes(int size, const std::vector<int64_t>& window_bytes);

// A device may be given several times: its ranks share it, which lets one GPU run a gang in tests.
// Windows are cleared. FAILED_PRECONDITION naming the devices without peer access. Changes the
// calling thread's device.
absl::StatusOr<Communicators> MakePeerCommunicators(std::span<const int> devices,
                                                    const std::vector<int64_t>& window_bytes);

}  // namespace assay::engine::cuda
