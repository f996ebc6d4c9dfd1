// Gets host data into device memory: piece by piece through two pinned buffers, so that the host
// fills one while the other travels.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>

#include "engine/kernels/cuda/device.h"

namespace assay::engine::cuda {

class WeightUpload {
 public:
  static absl::StatusOr<WeightUpload> Make(cudaStream_t stream);

  // Copies `size` bytes to `destination`. fill(offset, size, out) writes the bytes [offset, offset
  // + size) of the source; it is called in order, with offsets that are multiples of 1 MiB.
  using Fill = std::function<absl::Status(int64_t offset, int64_t size, std::byte* out)>;
  absl::Status Copy(void* destination, int64_t size, const Fill& fill);

  // Everything has arrived.
  absl::Status Finish();

 private:
  struct Slot {
    PinnedBuffer<std::byte> buffer;
    Event sent;
  };

  cudaStream_t stream_ = nullptr;
  Slot slots_[2];
  int next_ = 0;
};

}  // namespace assay::engine::cuda
