// The GPUs of this machine, as the driver's management library (NVML) tells of them. The library is
// opened while the program runs, so that nothing is linked, no CUDA context is made, and a machine
// without a driver is a plain answer. Memory is in bytes.
//
// Thread-safe. A driver that hangs holds up whoever asks it.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace assay::worker {

struct Gpu {
  int index = 0;     // as nvidia-smi counts
  std::string uuid;  // "GPU-8f0b..."
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int64_t memory_bytes = 0;
};

class GpuInventory {
 public:
  static constexpr char kLibrary[] = "libnvidia-ml.so.1";

  // NOT_FOUND without the driver's library; UNAVAILABLE when it does not answer, as after an
  // update of the driver under a running system.
  static absl::StatusOr<std::unique_ptr<GpuInventory>> Open(const std::string& library = kLibrary);

  ~GpuInventory();
  GpuInventory(const GpuInventory&) = delete;
  GpuInventory& operator=(const GpuInventory&) = delete;

  const std::vector<Gpu>& gpus() const { return gpus_; }

  // "driver 580.159.04, CUDA 13.0": the newest CUDA that this driver runs.
  const std::string& driver_versions() const { return driver_versions_; }

  // By all processes. UNAVAILABLE when the GPU does not answer, as after it fell off the bus.
  absl::StatusOr<int64_t> MemoryUsed(const Gpu& gpu) const;

 private:
  struct Library;
  explicit GpuInventory(std::unique_ptr<Library> library);
  absl::Status ReadAll();

  const std::unique_ptr<Library> library_;
  std::vector<Gpu> gpus_;
  std::string driver_versions_;
};

}  // namespace assay::worker
