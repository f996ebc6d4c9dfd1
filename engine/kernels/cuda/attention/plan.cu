// The list of a step's decode work items, made on the device; and which kernel serves which call.
#include <algorithm>

#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/attention/decode.cuh"

namespace assay::engine::cuda {
namespace {

using Limits = DecodeWorkspace::Limits;

constexpr int kPlanThreads = 256;

constexpr int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t ChunksOf(int64_t context_len) {
  return (context_len + kDecodeChunkTokens - 1) / kDecodeChunkTokens;
}

// Where the parts of a workspace begin.
struct Places {
  explicit Places(const Limits& limits) {
    const int64_t max_items = limits.max_rows * ChunksOf(limits.max_context_len);
    arrivals = 256;  // behind the number of items
    items = arrivals + Aligned(int64_t{limits.max_rows} * limits.num_kv_heads * 4);
    sums = items + Aligned(max_items * static_cast<int64_t>(sizeof(DecodeItem)));
    outputs = sums + Aligned(max_items * limits.num_heads * 8);
    end = outputs + max_items * limits.num_heads * limits.head_dim * 4;
  }
  int64_t arrivals;
  int64_t items;
  int64_t sums;
  int64_t outputs;
  int64_t end;
};

// A block per row: counts the chunks of the rows before it, then writes its own items.
__global__ void __launch_bounds__(kPlanThreads)
    PlanKernel(StepRows rows, int32_t* num_items, DecodeItem* items, int64_t max_items) {
  __shared__ int counts[kPlanThreads];
  const int row = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const auto chunks_of = [&](int r) {
    return (rows.positions[r] + kDecodeChunkTokens) /
           kDecodeChunkTokens;  // position + 1, rounded up
  };
  int before = 0;
  for (int r = thread; r < row; r += kPlanThreads) before += max(chunks_of(r), 0);
  counts[thread] = before;
  __syncthreads();
  for (int half = kPlanThreads / 2; half > 0; half /= 2) {
    if (thread < half) counts[thread] += counts[thread + half];
    __syncthreads();
  }
  const int first_item = counts[0];
  const int context_len = max(rows.positions[row] + 1, 0);
  const int num_chunks = max(chunks_of(row), 0);
  if (row == rows.num_rows - 1 && thread == 0) *num_items = first_item + num_chunks;

  const int sequence = rows.sequences == nullptr ? row : rows.sequences[row];
  const int32_t* const table = rows.block_tables + int64_t{sequence} * rows.block_table_stride;
  for (int i = thread; i < num_chunks * kDecodeItemWords; i += kPlanThreads) {
    const int chunk = i / kDecodeItemWords;
    const int word = i % kDecodeItemWords;
    const int page = chunk * kPagesPerChunk + word - 4;
    int32_t value = 0;
    if (word == 0) value = row;
    if (word == 1) value = chunk;
    if (word == 2) value = min(context_len - chunk * kDecodeChunkTokens, kDecodeChunkTokens);
    if (word == 3) value = num_chunks;
    if (word >= 4 && page * kKvPageTokens < context_len) value = table[page];
    if (first_item + chunk < max_items) {
      reinterpret_cast<int32_t*>(items + first_item + chunk)[word] = value;
    }
  }
}

DecodeBuffers BuffersOf(const DecodeWorkspace& workspace) {
  const Places places(workspace.limits());
  uint8_t* const base = workspace.data();
  return {.num_items = reinterpret_cast<const int32_t*>(base),
          .items = reinterpret_cast<const DecodeItem*>(base + places.items),
          .arrivals = reinterpret_cast<int32_t*>(base + places.arrivals),
          .outputs = reinterpret_cast<float*>(base + places.outputs),
          .sums = reinterpret_cast<float*>(base + places.sums)};
}

}  // namespace

int64_t DecodeWorkspace::max_items() const {
  return limits_.max_rows * ChunksOf(limits_.max_context_len);
}

int64_t DecodeWorkspace::Bytes(const Limits& limits) { return Places(limits).end; }

absl::StatusOr<DecodeWorkspace> DecodeWorkspace::Make(const Limits& limits) {
  absl::StatusOr<DeviceBuffer<uint8_t>> memory = DeviceBuffer<uint8_t>::Allocate(Bytes(limits));
  if (!memory.ok()) return memory.status();
  // Arrivals begin at zero, and kernels leave them so.
  const Places places(limits);
  ASSAY_RETURN_IF_CUDA_ERROR(cudaMemset(memory->data(), 0, static_cast<size_t>(places.items)));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaDeviceSynchronize());
  DecodeWorkspace workspace;
  workspace.limits_ = limits;
  workspace.memory_ = *std::move(memory);
  return workspace;
}

absl::Status PlanDecode(const StepRows& rows, const DecodeWorkspace& workspace,
                        cudaStream_t stream) {
  if (rows.num_rows == 0) return absl::OkStatus();
  if (rows.num_rows > workspace.limits().max_rows) {
    return absl::InvalidArgumentError("PlanDecode: more rows than the workspace was made for");
  }
  const DecodeBuffers buffers = BuffersOf(workspace);
  PlanKernel<<<static_cast<unsigned>(rows.num_rows), kPlanThreads, 0, stream>>>(
      rows, const_cast<int32_t*>(buffers.num_items), const_cast<DecodeItem*>(buffers.items),
      workspace.max_items());
  return CudaStatus(cudaGetLastError(), "PlanDecode");
}

absl::Status DecodeAttention(const AttentionArgs& args, const DecodeWorkspace& workspace,
                             cudaStream_t stream) {
  if (args.rows.num_rows == 0) return absl::OkStatus();
  const Limits& limits = workspace.limits();
  if (args.rows.num_rows > limits.max_rows || args.num_heads != limits.num_heads ||
      args.cache.num_kv_heads != limits.num_kv_heads ||
      args.cache.layout.head_dim != limits.head_dim ||
      args.num_heads % args.cache.num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        "DecodeAttention: the workspace was made for another model or fewer rows");
  }
  if (!HasFastDecode(args)) return PlainAttention(args, stream);
  return FastDecode(args, BuffersOf(workspace), stream);
}

}  // namespace assay::engine::cuda
