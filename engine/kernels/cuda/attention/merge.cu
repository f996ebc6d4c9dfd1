// Merges the chunks of a row's decode attention in their order:
//
//   output = sum_i 2^(max_i - max) output_i / sum_i 2^(max_i - max) sum_i
//
// Of rows that were split, the parts first: each warp's parts of a chunk in their order, then the
// chunk's warps in theirs, as the decode kernel does where a chunk is a work item; bit for bit.
//
// Bound: the second-level cache, where the sums just went (15 MB for 64 rows of 28 heads and 16
// chunks); of few rows latency. Launched while decode attention ends, and waits for its end.
#include <cuda_bf16.h>

#include <cmath>

#include "engine/kernels/cuda/attention/decode.cuh"
#include "engine/kernels/cuda/attention/decode_tile.cuh"
#include "engine/kernels/cuda/attention/ptx.cuh"
#include "engine/kernels/cuda/launch.cuh"

namespace assay::engine::cuda {
namespace {

constexpr int kWarpSize = 32;

struct MergeParams {
  const int32_t* positions;
  int num_heads;
  DecodeBuffers buffers;
  __nv_bfloat16* out;
  int64_t out_stride;
};

// Neighbouring dims of a head, a lane's.
template <int kCount>
struct alignas(4 * kCount) Dims {
  float values[kCount];

  __device__ void AddWeighted(const Dims& part, float weight) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = fmaf(part.values[i], weight, values[i]);
  }
};

// The sums of a head: in all lanes maximum and sum, in each its dims.
template <int kCount>
struct HeadSums {
  float2 sums;
  Dims<kCount> output;
};

// By a warp: `sums_of(chunk)` and `output_of(chunk)`, the lane's dims; `out`: of the warp's first.
template <int kCount, typename SumsOf, typename OutputOf>
__device__ void MergeChunksOf(int num_chunks, int lane, const SumsOf& sums_of,
                              const OutputOf& output_of, __nv_bfloat16* out) {
  float max = -INFINITY;
  for (int chunk = lane; chunk < num_chunks; chunk += kWarpSize) {
    max = fmaxf(max, sums_of(chunk).x);
  }
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, distance));
  }
  float sum = 0;
  Dims<kCount> output = {};
  for (int begin = 0; begin < num_chunks; begin += kWarpSize) {
    float weight = 0;
    if (begin + lane < num_chunks) {
      const float2 sums = sums_of(begin + lane);
      weight = Exp2(sums.x - max);
      sum = fmaf(sums.y, weight, sum);
    }
    const int count = min(kWarpSize, num_chunks - begin);
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      const float factor = __shfl_sync(kAllLanes, weight, i);
      output.AddWeighted(output_of(begin + i), factor);
    }
  }
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, distance);
  }
  const float inverse = 1.0f / sum;
  auto* const pairs = reinterpret_cast<uint32_t*>(out) + lane * (kCount / 2);
#pragma unroll
  for (int i = 0; i < kCount; i += 2) {
    pairs[i / 2] = PackBf16(output.values[i] * inverse, output.values[i + 1] * inverse);
  }
}

// Of a head, by slot; a warp's dims from `first_dim` on.
template <int kCount>
struct StoredSums {
  const MergeParams& p;
  int64_t first_slot;
  int head;
  int first_dim;
  int lane;

  __device__ int64_t Place(int slot) const { return (first_slot + slot) * p.num_heads + head; }
  __device__ float2 sums(int slot) const { return p.buffers.sums[Place(slot)]; }
  __device__ Dims<kCount> output(int slot) const {
    return reinterpret_cast<const Dims<kCount>*>(
        p.buffers.outputs + Place(slot) * kTensorCoreHeadDim + first_dim)[lane];
  }
};

// Grid: [rows, heads / kHeads]; a warp owns a head of a row.
constexpr int kHeads = 4;

__global__ void __launch_bounds__(kHeads* kWarpSize) MergeKernel(const MergeParams p) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int row = static_cast<int>(blockIdx.x);
  const int head =
      static_cast<int>(blockIdx.y) * kHeads + static_cast<int>(threadIdx.x) / kWarpSize;
  const int num_chunks = NumChunks(PagesOf(max(p.positions[row] + 1, 0)));
  if (head >= p.num_heads || num_chunks < 2) return;
  constexpr int kDims = kTensorCoreHeadDim / kWarpSize;
  const StoredSums<kDims> stored = {p, int64_t{row} * p.buffers.slots_per_row, head, 0, lane};
  MergeChunksOf<kDims>(
      num_chunks, lane, [&](int chunk) { return stored.sums(chunk); },
      [&](int chunk) { return stored.output(chunk); },
      p.out + row * p.out_stride + int64_t{head} * kTensorCoreHeadDim);
}

// What one warp of the decode kernel summed up of a chunk: `num_parts` from `first_part` on.
template <int kCount>
__device__ HeadSums<kCount> AddParts(const StoredSums<kCount>& stored, int first_part,
                                     int num_parts, int warp) {
  HeadSums<kCount> parts[kPartsPerChunk];
#pragma unroll
  for (int i = 0; i < kPartsPerChunk; ++i) {
    if (i >= num_parts) break;
    const int slot = (first_part + i) * kDecodeWarps + warp;
    parts[i] = {stored.sums(slot), stored.output(slot)};
  }
  HeadSums<kCount> all = parts[0];
#pragma unroll
  for (int i = 1; i < kPartsPerChunk; ++i) {
    if (i >= num_parts) break;
    const PartFactors factors(all.sums.x, parts[i].sums.x);
    all.sums = make_float2(factors.max, factors.Add(all.sums.y, parts[i].sums.y));
#pragma unroll
    for (int d = 0; d < kCount; ++d) {
      all.output.values[d] = factors.Add(all.output.values[d], parts[i].output.values[d]);
    }
  }
  return all;
}

// Grid: [rows, heads, kSplitShares]: blocks share the dims of a head, so that more of the device
// fetches.
constexpr int kSplitShares = 2;
constexpr int kSplitWarps = 32;

__global__ void __launch_bounds__(kSplitWarps* kWarpSize) MergeSplitKernel(const MergeParams p) {
  constexpr int kDims = kTensorCoreHeadDim / kWarpSize / kSplitShares;
  constexpr int kMostSums = kMostSplitChunks * kDecodeWarps;
  __shared__ Dims<kDims> outputs[kMostSums][kWarpSize];
  __shared__ float2 sums[kMostSums];
  LetNextKernelStart();
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int row = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const int first_dim = static_cast<int>(blockIdx.z) * kDims * kWarpSize;
  const int num_pages = PagesOf(max(p.positions[row] + 1, 0));
  const int num_chunks = NumChunks(num_pages);
  const int part_pages = PartPages(num_pages);
  const int num_parts = (num_pages + part_pages - 1) / part_pages;
  const StoredSums<kDims> stored = {p, int64_t{row} * p.buffers.slots_per_row, head, first_dim,
                                    lane};
  __nv_bfloat16* const out =
      p.out + row * p.out_stride + int64_t{head} * kTensorCoreHeadDim + first_dim;
  WaitForKernelsBefore();
  if (num_pages == 0) return;
  if (!IsSplit(num_pages)) {
    if (warp > 0) return;
    MergeChunksOf<kDims>(
        num_chunks, lane, [&](int chunk) { return stored.sums(chunk); },
        [&](int chunk) { return stored.output(chunk); }, out);
    return;
  }

  for (int i = warp; i < num_chunks * kDecodeWarps; i += kSplitWarps) {
    const int first_part = i / kDecodeWarps * kPartsPerChunk;
    const HeadSums<kDims> all =
        AddParts(stored, first_part, min(kPartsPerChunk, num_parts - first_part), i % kDecodeWarps);
    outputs[i][lane] = all.output;
    if (lane == 0) sums[i] = all.sums;
  }
  __syncthreads();
  // The four warps of a chunk, as MergeWarps of the decode kernel; into the place of the first.
  for (int chunk = warp; chunk < num_chunks; chunk += kSplitWarps) {
    const int first = chunk * kDecodeWarps;
    static_assert(kDecodeWarps == 4);
    float2 of[kDecodeWarps];
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) of[w] = sums[first + w];
    const float max = fmaxf(fmaxf(of[0].x, of[1].x), fmaxf(of[2].x, of[3].x));
    Dims<kDims> output = {};
    float weighted[kDecodeWarps];
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) {
      const float weight = Exp2(of[w].x - max);
      weighted[w] = __fmul_rn(of[w].y, weight);
      output.AddWeighted(outputs[first + w][lane], weight);
    }
    const float sum =
        __fadd_rn(__fadd_rn(weighted[0], weighted[1]), __fadd_rn(weighted[2], weighted[3]));
    __syncwarp();
    outputs[first][lane] = output;
    if (lane == 0) sums[first] = make_float2(max, sum);
  }
  __syncthreads();
  if (warp > 0) return;
  MergeChunksOf<kDims>(
      num_chunks, lane, [&](int chunk) { return sums[chunk * kDecodeWarps]; },
      [&](int chunk) { return outputs[chunk * kDecodeWarps][lane]; }, out);
}

}  // namespace

absl::Status MergeChunks(const AttentionArgs& args, const DecodeBuffers& buffers,
                         cudaStream_t stream) {
  const MergeParams params = {.positions = args.rows.positions,
                              .num_heads = args.num_heads,
                              .buffers = buffers,
                              .out = args.output,
                              .out_stride = args.output_stride};
  const auto rows = static_cast<unsigned>(args.rows.num_rows);
  const auto heads = static_cast<unsigned>(args.num_heads);
  const auto status = buffers.splits
                          ? LaunchOverlapped(MergeSplitKernel, dim3(rows, heads, kSplitShares),
                                             kSplitWarps * kWarpSize, 0, 1, stream, params)
                          : LaunchOverlapped(MergeKernel, dim3(rows, (heads + kHeads - 1) / kHeads),
                                             kHeads * kWarpSize, 0, 1, stream, params);
  return CudaStatus(status, "MergeChunks");
}

}  // namespace assay::engine::cuda
