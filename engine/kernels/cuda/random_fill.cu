// Philox(seed, i) into values; see random_fill.h. Bound by Philox's arithmetic, about 40
// instructions a value: 15 GB in some 50 ms.
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/random_fill.h"
#include "engine/kernels/philox.h"

namespace assay::engine::cuda {
namespace {

constexpr int kThreadsPerBlock = 256;

__device__ void Store(float value, float* p) { *p = value; }
__device__ void Store(float value, __nv_bfloat16* p) { *p = __float2bfloat16_rn(value); }

// Four times 16 bits: variance 4 / 12 of a unit interval each.
__device__ float Draw(uint64_t seed, int64_t index) {
  const uint64_t word = UniformWord(seed, static_cast<uint64_t>(index));
  float sum = 0;
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    sum += static_cast<float>(word >> (16 * part) & 0xFFFF) * 0x1.0p-16f;
  }
  return (sum - 2.0f) * 1.7320508f;
}

template <typename T>
__global__ void FillKernel(T* values, int64_t size, float mean, float deviation, uint64_t seed) {
  const int64_t stride = int64_t{gridDim.x} * kThreadsPerBlock;
  for (int64_t i = int64_t{blockIdx.x} * kThreadsPerBlock + threadIdx.x; i < size; i += stride) {
    Store(mean + deviation * Draw(seed, i), values + i);
  }
}

__global__ void FillSliceKernel(__nv_bfloat16* values, const RandomSlice slice, float mean,
                                float deviation, uint64_t seed) {
  const int64_t size = slice.rows * slice.columns;
  const int64_t stride = int64_t{gridDim.x} * kThreadsPerBlock;
  for (int64_t i = int64_t{blockIdx.x} * kThreadsPerBlock + threadIdx.x; i < size; i += stride) {
    const int64_t row = slice.first_row + i / slice.columns;
    const int64_t column = slice.first_column + i % slice.columns;
    Store(mean + deviation * Draw(seed, row * slice.whole_columns + column), values + i);
  }
}

__global__ void FillBytesKernel(uint64_t* words, int64_t num_words, uint64_t seed) {
  const int64_t stride = int64_t{gridDim.x} * kThreadsPerBlock;
  for (int64_t i = int64_t{blockIdx.x} * kThreadsPerBlock + threadIdx.x; i < num_words;
       i += stride) {
    words[i] = UniformWord(seed, static_cast<uint64_t>(i));
  }
}

int BlocksFor(int64_t size) {
  const int64_t blocks = (size + kThreadsPerBlock - 1) / kThreadsPerBlock;
  return static_cast<int>(blocks < 8192 ? blocks : 8192);
}

template <typename T>
absl::Status Fill(T* values, int64_t size, float mean, float deviation, uint64_t seed,
                  cudaStream_t stream) {
  if (size == 0) return absl::OkStatus();
  FillKernel<<<BlocksFor(size), kThreadsPerBlock, 0, stream>>>(values, size, mean, deviation, seed);
  return CudaStatus(cudaGetLastError(), "FillRandom");
}

}  // namespace

absl::Status FillRandom(__nv_bfloat16* values, int64_t size, float mean, float deviation,
                        uint64_t seed, cudaStream_t stream) {
  return Fill(values, size, mean, deviation, seed, stream);
}

absl::Status FillRandom(float* values, int64_t size, float mean, float deviation, uint64_t seed,
                        cudaStream_t stream) {
  return Fill(values, size, mean, deviation, seed, stream);
}

absl::Status FillRandomSlice(__nv_bfloat16* values, const RandomSlice& slice, float mean,
                             float deviation, uint64_t seed, cudaStream_t stream) {
  const int64_t size = slice.rows * slice.columns;
  if (size == 0) return absl::OkStatus();
  FillSliceKernel<<<BlocksFor(size), kThreadsPerBlock, 0, stream>>>(values, slice, mean, deviation,
                                                                    seed);
  return CudaStatus(cudaGetLastError(), "FillRandomSlice");
}

// The last size % 8 bytes stay as they are.
absl::Status FillRandomBytes(void* bytes, int64_t size, uint64_t seed, cudaStream_t stream) {
  const int64_t num_words = size / 8;
  if (num_words == 0) return absl::OkStatus();
  FillBytesKernel<<<BlocksFor(num_words), kThreadsPerBlock, 0, stream>>>(
      static_cast<uint64_t*>(bytes), num_words, seed);
  return CudaStatus(cudaGetLastError(), "FillRandomBytes");
}

}  // namespace assay::engine::cuda
