// The GPUs that a gang of a test runs on.
#pragma once

#include <algorithm>
#include <vector>

#include "engine/kernels/cuda/device.h"
#include "engine/parallel/peer/peer_communicator.h"

namespace assay::engine::cuda {

// Of the first GPUs, how many reach each other's memory, up to `most`; one always does.
inline int NumPeers(int most) {
  std::vector<int> devices;
  for (int device = 0; device < std::min(most, NumDevices()); ++device) {
    devices.push_back(device);
    if (!HavePeerAccess(devices)) return device;
  }
  return static_cast<int>(devices.size());
}

// One for each rank; where there are fewer, they share them in turn.
inline std::vector<int> GangDevices(int num_ranks) {
  const int num_devices = std::max(1, NumPeers(num_ranks));
  std::vector<int> devices;
  for (int rank = 0; rank < num_ranks; ++rank) devices.push_back(rank % num_devices);
  return devices;
}

}  // namespace assay::engine::cuda
