// What a CUDA kernel's caller needs of a device: errors as statuses, memory, streams, events and
// graphs with owners. No CUDA syntax: plain C++ may include it.
//
// A failed CUDA call is INTERNAL with the call's words and the device's: the context is lost with
// it, so the process ends. Memory that does not fit is RESOURCE_EXHAUSTED and harms nothing.
//
// Owners are move-only and belong to the device that was current when they were made. Members of a
// class die in reverse order: declare a stream before what runs on it, a graph after its kernels'
// memory.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

namespace assay::engine::cuda {

// OK for cudaSuccess; else an error that says "call: what CUDA says". Clears the last error.
absl::Status CudaStatus(cudaError_t error, const char* call);

#define ASSAY_RETURN_IF_CUDA_ERROR(call)                                  \
  do {                                                                    \
    const cudaError_t assay_cuda_error_ = (call);                         \
    if (assay_cuda_error_ != cudaSuccess) {                               \
      return ::assay::engine::cuda::CudaStatus(assay_cuda_error_, #call); \
    }                                                                     \
  } while (false)

// The devices that this process sees; 0 without a driver or a GPU.
int NumDevices();

struct DeviceProperties {
  int ordinal = 0;
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  int num_multiprocessors = 0;
  int64_t l2_bytes = 0;
  int64_t shared_bytes_per_block = 0;  // with the opt-in
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // now, over all processes
};

// Makes `ordinal` the calling thread's device. NOT_FOUND when there is no such device,
// FAILED_PRECONDITION when our kernels (sm_90a) do not run on it.
absl::StatusOr<DeviceProperties> UseDevice(int ordinal);

template <auto kRelease>
struct Releaser {
  template <typename T>
  void operator()(T* handle) const noexcept {
    (void)kRelease(handle);
  }
};

using Stream = std::unique_ptr<CUstream_st, Releaser<cudaStreamDestroy>>;
using Event = std::unique_ptr<CUevent_st, Releaser<cudaEventDestroy>>;
using Graph = std::unique_ptr<CUgraphExec_st, Releaser<cudaGraphExecDestroy>>;

absl::StatusOr<Stream> MakeStream();
absl::StatusOr<Event> MakeEvent();  // with timing
// Milliseconds between two events that have happened.
absl::StatusOr<float> ElapsedMs(const Event& start, const Event& end);

// Records what `body` launches on `stream` (and on streams that it joins to it), to be launched
// again as one. Nothing runs. Body: absl::Status().
template <typename Body>
absl::StatusOr<Graph> CaptureGraph(cudaStream_t stream, const Body& body);

namespace internal {
absl::StatusOr<void*> AllocateDevice(size_t bytes);
absl::StatusOr<void*> AllocatePinned(size_t bytes);
absl::Status BeginCapture(cudaStream_t stream);
absl::StatusOr<Graph> EndCapture(cudaStream_t stream, const absl::Status& body);
}  // namespace internal

// Sets memory of this thread's device and waits for it: the streams above are not ordered behind
// the default one.
absl::Status SetBytes(void* data, int value, int64_t size);

// `size` elements in device memory, uninitialized.
template <typename T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  static absl::StatusOr<DeviceBuffer> Allocate(int64_t size) {
    absl::StatusOr<void*> data = internal::AllocateDevice(static_cast<size_t>(size) * sizeof(T));
    if (!data.ok()) return data.status();
    return DeviceBuffer(static_cast<T*>(*data), size);
  }

  T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }

  // Asynchronous where the host's memory is pinned.
  absl::Status CopyFrom(std::span<const T> values, cudaStream_t stream, int64_t offset = 0) const {
    return CudaStatus(cudaMemcpyAsync(data_.get() + offset, values.data(), values.size_bytes(),
                                      cudaMemcpyHostToDevice, stream),
                      "cudaMemcpyAsync to the device");
  }
  absl::Status CopyTo(std::span<T> values, cudaStream_t stream, int64_t offset = 0) const {
    return CudaStatus(cudaMemcpyAsync(values.data(), data_.get() + offset, values.size_bytes(),
                                      cudaMemcpyDeviceToHost, stream),
                      "cudaMemcpyAsync from the device");
  }

 private:
  DeviceBuffer(T* data, int64_t size) : data_(data), size_(size) {}

  std::unique_ptr<T, Releaser<cudaFree>> data_;
  int64_t size_ = 0;
};

// `size` elements of host memory that the device copies from and to without a detour.
template <typename T>
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  static absl::StatusOr<PinnedBuffer> Allocate(int64_t size) {
    absl::StatusOr<void*> data = internal::AllocatePinned(static_cast<size_t>(size) * sizeof(T));
    if (!data.ok()) return data.status();
    return PinnedBuffer(static_cast<T*>(*data), size);
  }

  T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }
  T& operator[](int64_t index) const { return data_.get()[index]; }
  std::span<T> first(int64_t count) const {
    return std::span<T>(data_.get(), static_cast<size_t>(count));
  }

 private:
  PinnedBuffer(T* data, int64_t size) : data_(data), size_(size) {}

  std::unique_ptr<T, Releaser<cudaFreeHost>> data_;
  int64_t size_ = 0;
};

template <typename Body>
absl::StatusOr<Graph> CaptureGraph(cudaStream_t stream, const Body& body) {
  const absl::Status begun = internal::BeginCapture(stream);
  if (!begun.ok()) return begun;
  return internal::EndCapture(stream, body());
}

}  // namespace assay::engine::cuda
