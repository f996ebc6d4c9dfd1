#include "engine/kernels/cuda/device.h"

#include "base/status.h"

namespace assay::engine::cuda {

absl::Status CudaStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  (void)cudaGetLastError();
  return Internal("{}: {} ({})", call, cudaGetErrorString(error), cudaGetErrorName(error));
}

int NumDevices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();
  return 0;
}

absl::StatusOr<DeviceProperties> UseDevice(int ordinal) {
  const int count = NumDevices();
  if (ordinal < 0 || ordinal >= count) {
    return NotFound("there is no device cuda:{}: this process sees {} GPUs", ordinal, count);
  }
  ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(ordinal));
  cudaDeviceProp found;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&found, ordinal));
  DeviceProperties properties;
  properties.ordinal = ordinal;
  properties.name = found.name;
  properties.major = found.major;
  properties.minor = found.minor;
  properties.num_multiprocessors = found.multiProcessorCount;
  properties.l2_bytes = found.l2CacheSize;
  properties.shared_bytes_per_block = static_cast<int64_t>(found.sharedMemPerBlockOptin);
  if (found.major != 9) {
    return FailedPrecondition(
        "cuda:{} ({}) has compute capability {}.{}; the kernels are built for 9.0 (Hopper)",
        ordinal, properties.name, found.major, found.minor);
  }
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes));
  properties.free_bytes = static_cast<int64_t>(free_bytes);
  properties.total_bytes = static_cast<int64_t>(total_bytes);
  return properties;
}

absl::Status SetBytes(void* data, int value, int64_t size) {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaMemset(data, value, static_cast<size_t>(size)));
  return CudaStatus(cudaStreamSynchronize(cudaStreamLegacy), "cudaMemset");
}

absl::StatusOr<Stream> MakeStream() {
  cudaStream_t stream = nullptr;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

absl::StatusOr<Event> MakeEvent() {
  cudaEvent_t event = nullptr;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventCreate(&event));
  return Event(event);
}

absl::StatusOr<float> ElapsedMs(const Event& start, const Event& end) {
  float milliseconds = 0;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&milliseconds, start.get(), end.get()));
  return milliseconds;
}

namespace internal {

absl::StatusOr<void*> AllocateDevice(size_t bytes) {
  if (bytes == 0) return nullptr;
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error != cudaErrorMemoryAllocation) {
    ASSAY_RETURN_IF_ERROR(CudaStatus(error, "cudaMalloc"));
    return data;
  }
  (void)cudaGetLastError();
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes));
  return ResourceExhausted("{} bytes of device memory were wanted; {} of {} are free", bytes,
                           free_bytes, total_bytes);
}

absl::StatusOr<void*> AllocatePinned(size_t bytes) {
  if (bytes == 0) return nullptr;
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return ResourceExhausted("{} bytes of pinned host memory could not be had", bytes);
  }
  ASSAY_RETURN_IF_ERROR(CudaStatus(error, "cudaHostAlloc"));
  return data;
}

absl::Status BeginCapture(cudaStream_t stream) {
  return CudaStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                    "cudaStreamBeginCapture");
}

absl::StatusOr<Graph> EndCapture(cudaStream_t stream, const absl::Status& body) {
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  const std::unique_ptr<CUgraph_st, Releaser<cudaGraphDestroy>> owner(graph);
  ASSAY_RETURN_IF_ERROR(body);
  ASSAY_RETURN_IF_ERROR(CudaStatus(ended, "cudaStreamEndCapture"));
  cudaGraphExec_t executable = nullptr;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaGraphInstantiate(&executable, graph, 0));
  return Graph(executable);
}

}  // namespace internal
}  // namespace assay::engine::cuda
