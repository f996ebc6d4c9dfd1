// The list of a step's decode work items, made on the device; and which kernel serves which call.
#include <algorithm>

#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/attention/decode.cuh"
#include "engine/kernels/cuda/launch.cuh"

namespace assay::engine::cuda {
namespace {

using Limits = DecodeWorkspace::Limits;

constexpr int kPlanThreads = 256;
constexpr int kMostChunks = 1024;  // 2 M tokens

constexpr int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Where the parts of a workspace begin.
struct Places {
  explicit Places(const Limits& limits) {
    const int64_t slots = int64_t{limits.max_rows} * MaxChunks(limits.max_context_len);
    items = 256;  // behind their number
    sums = items + Aligned(slots * static_cast<int64_t>(sizeof(DecodeItem)));
    outputs = sums + Aligned(slots * limits.num_heads * static_cast<int64_t>(sizeof(float2)));
    end =
        outputs + slots * limits.num_heads * limits.head_dim * static_cast<int64_t>(sizeof(float));
  }
  int64_t items;
  int64_t sums;
  int64_t outputs;
  int64_t end;
};

// A block per row. Item (row, chunk) stands behind all items of earlier chunks and behind this
// chunk's of the rows before: the full chunks come first, and blocks of a cache that were filled at
// the same time are read at the same time.
__global__ void __launch_bounds__(kPlanThreads)
    PlanKernel(const StepRows rows, const DecodeBuffers buffers) {
  __shared__ int all[kMostChunks + 1];     // how many rows have so many chunks
  __shared__ int before[kMostChunks + 1];  // of the rows before this one
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int row = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const auto pages_of = [&](int r) { return PagesOf(max(rows.positions[r] + 1, 0)); };
  for (int n = thread; n <= buffers.max_chunks; n += kPlanThreads) all[n] = before[n] = 0;
  __syncthreads();
  for (int r = thread; r < rows.num_rows; r += kPlanThreads) {
    const int n = min(NumChunks(pages_of(r)), buffers.max_chunks);
    atomicAdd(&all[n], 1);
    if (r < row) atomicAdd(&before[n], 1);
  }
  __syncthreads();
  // Rows with more than n chunks, for every n.
  if (thread == 0) {
    for (int n = buffers.max_chunks - 1; n > 0; --n) {
      all[n] += all[n + 1];
      before[n] += before[n + 1];
    }
  }
  __syncthreads();

  const int context_len = max(rows.positions[row] + 1, 0);
  const int num_pages = pages_of(row);
  const int num_chunks = min(NumChunks(num_pages), buffers.max_chunks);
  const int chunk_pages = ChunkPages(num_pages);
  if (row == 0 && thread == 0) {
    int num_items = 0;
    for (int n = 1; n <= buffers.max_chunks; ++n) num_items += all[n];
    *buffers.num_items = num_items;
  }
  for (int chunk = thread; chunk < num_chunks; chunk += kPlanThreads) {
    int index = before[chunk + 1];
    for (int n = 1; n <= chunk; ++n) index += all[n];
    const int first_page = chunk * chunk_pages;
    buffers.items[index] = {
        .row = row,
        .sequence = rows.sequences == nullptr ? row : rows.sequences[row],
        .chunk = chunk,
        .first_page = first_page,
        .num_tokens = min(context_len - first_page * kKvPageTokens, chunk_pages * kKvPageTokens),
        .num_chunks = num_chunks};
  }
}

DecodeBuffers BuffersOf(const DecodeWorkspace& workspace) {
  const Places places(workspace.limits());
  uint8_t* const base = workspace.data();
  return {.num_items = reinterpret_cast<int32_t*>(base),
          .items = reinterpret_cast<DecodeItem*>(base + places.items),
          .max_chunks = MaxChunks(workspace.limits().max_context_len),
          .outputs = reinterpret_cast<float*>(base + places.outputs),
          .sums = reinterpret_cast<float2*>(base + places.sums)};
}

}  // namespace

int64_t DecodeWorkspace::Bytes(const Limits& limits) { return Places(limits).end; }

absl::StatusOr<DecodeWorkspace> DecodeWorkspace::Make(const Limits& limits) {
  if (MaxChunks(limits.max_context_len) > kMostChunks) {
    return absl::InvalidArgumentError("DecodeWorkspace: contexts of more than 2 M tokens");
  }
  absl::StatusOr<DeviceBuffer<uint8_t>> memory = DeviceBuffer<uint8_t>::Allocate(Bytes(limits));
  if (!memory.ok()) return memory.status();
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
  return CudaStatus(LaunchOverlapped(PlanKernel, dim3(static_cast<unsigned>(rows.num_rows)),
                                     kPlanThreads, 0, 1, stream, rows, BuffersOf(workspace)),
                    "PlanDecode");
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
  const DecodeBuffers buffers = BuffersOf(workspace);
  const absl::Status status = FastDecode(args, buffers, stream);
  return status.ok() ? MergeChunks(args, buffers, stream) : status;
}

}  // namespace assay::engine::cuda
