// Gets host data into device memory: pieces of 4 MiB through pinned buffers, filled by several
// threads at once (one alone reads a mapped file at a fraction of what the disk and PCIe give),
// each of which fills one buffer while its other travels.
//
// To the caller's stream a Copy is one of its own operations: it writes after what was on the
// stream before, and what comes behind it finds the data there. So kernels may read what was
// copied, and the next Copy may write it again.
//
// One thread calls.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "engine/kernels/cuda/device.h"

namespace assay::engine::cuda {

class WeightUpload {
 public:
  // For the calling thread's device, in the order of `stream`.
  static absl::StatusOr<WeightUpload> Make(cudaStream_t stream,
                                           const Clock* clock = RealClock::Get());
  ~WeightUpload();
  WeightUpload(WeightUpload&&) noexcept;
  WeightUpload& operator=(WeightUpload&&) = delete;

  // Copies `size` bytes to `destination`. fill(offset, size, out) writes the bytes [offset, offset
  // + size) of the source: from several threads at once, for pieces at multiples of 4 MiB, and no
  // longer when Copy returns. The first error of a piece is returned; others may be missing then.
  using Fill = std::function<absl::Status(int64_t offset, int64_t size, std::byte* out)>;
  absl::Status Copy(void* destination, int64_t size, const Fill& fill);

  // Everything on the stream is done. Logs the rate.
  absl::Status Finish();

 private:
  class Crew;

  WeightUpload(std::unique_ptr<Crew> crew, const Clock* clock);

  std::unique_ptr<Crew> crew_;
  const Clock* clock_;
  absl::Duration start_;
  int64_t num_bytes_ = 0;
};

}  // namespace assay::engine::cuda
