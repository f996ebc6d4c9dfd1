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

// Of a row in a step that splits rows: this one is split or has chunks.
int SlotsOfSplitRow(const Limits& limits) {
  const int max_chunks = MaxChunks(limits.max_context_len);
  return std::max(std::min(max_chunks, kMostSplitChunks) * kPartsPerChunk * kDecodeWarps,
                  max_chunks);
}

// Where the parts of a workspace begin.
struct Places {
  explicit Places(const Limits& limits) {
    const int max_chunks = MaxChunks(limits.max_context_len);
    const int64_t split_rows =
        std::min(limits.max_rows, kSplitRowHeads / std::max(limits.num_kv_heads, 1));
    const int64_t slots =
        std::max(int64_t{limits.max_rows} * max_chunks, split_rows * SlotsOfSplitRow(limits));
    items = 256;  // behind their number; no more than slots
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

__device__ int PagesOfRow(const StepRows& rows, int row) {
  return PagesOf(max(rows.positions[row] + 1, 0));
}

// A row's last chunk, and its tokens: none in a row without a context.
struct LastChunk {
  int chunk;
  int len;
};

__device__ LastChunk LastChunkOfRow(const StepRows& rows, const DecodeBuffers& buffers, int row) {
  const int num_pages = PagesOfRow(rows, row);
  if (num_pages == 0) return {0, 0};
  const int chunk = min(NumChunks(num_pages), buffers.max_chunks) - 1;
  return {chunk, rows.positions[row] + 1 - chunk * ChunkPages(num_pages) * kKvPageTokens};
}

// A row's items, at(i) being the index of its i-th; by the threads of a block.
template <typename Index>
__device__ void PutItems(const StepRows& rows, const DecodeBuffers& buffers, int row,
                         const Index& at) {
  const int context_len = max(rows.positions[row] + 1, 0);
  const int num_pages = PagesOf(context_len);
  const int num_chunks = min(NumChunks(num_pages), buffers.max_chunks);
  const bool is_split = buffers.splits && IsSplit(num_pages);
  const int part_pages = PartPages(num_pages);
  const int item_pages = is_split ? part_pages : ChunkPages(num_pages);
  const int num_items = is_split ? (num_pages + part_pages - 1) / part_pages : num_chunks;
  for (int i = static_cast<int>(threadIdx.x); i < num_items; i += kPlanThreads) {
    const int first_page = i * item_pages;
    const int left = context_len - first_page * kKvPageTokens;
    const int first_slot = row * buffers.slots_per_row;
    const bool has_slot = is_split || num_chunks > 1;
    buffers.items[at(i)] = {.row = row,
                            .sequence = rows.sequences == nullptr ? row : rows.sequences[row],
                            .first_page = first_page,
                            .num_tokens = min(left, item_pages * kKvPageTokens),
                            .slot = has_slot ? first_slot + i * (is_split ? kDecodeWarps : 1) : -1,
                            .kind = part_pages | (is_split ? kIsPart : 0) |
                                    (left <= item_pages * kKvPageTokens ? kEndsRow : 0),
                            .position = context_len - 1};
  }
}

// A block per row, few of them. The items of a row stand behind those of the rows before.
__global__ void __launch_bounds__(kPlanThreads)
    PlanFewKernel(const StepRows rows, const DecodeBuffers buffers) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int row = static_cast<int>(blockIdx.x);
  int before = 0;
  int all = 0;
  for (int r = 0; r < rows.num_rows; ++r) {
    const int num_pages = PagesOfRow(rows, r);
    const int part_pages = PartPages(num_pages);
    if (r == row) before = all;
    all += IsSplit(num_pages) ? (num_pages + part_pages - 1) / part_pages
                              : min(NumChunks(num_pages), buffers.max_chunks);
  }
  if (row == 0 && threadIdx.x == 0) *buffers.num_items = all;
  PutItems(rows, buffers, row, [&](int i) { return before + i; });
}

// A block per row. Chunks that others of their row follow are full and come first, the rows' first
// ones, then the second ones, so that blocks of a cache that were filled at the same time are read
// at the same time. The rows' last chunks come behind them, the longest first: what the decode
// kernel's blocks take in turns (ItemOfTurn) keeps them all busy to the end.
__global__ void __launch_bounds__(kPlanThreads)
    PlanKernel(const StepRows rows, const DecodeBuffers buffers) {
  __shared__ int all[kMostChunks + 1];     // rows with so many full chunks and more
  __shared__ int before[kMostChunks + 1];  // of the rows before this one
  __shared__ int num_last;                 // last chunks
  __shared__ int num_longer;               // of them, before this row's
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int row = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  for (int n = thread; n <= buffers.max_chunks; n += kPlanThreads) all[n] = before[n] = 0;
  if (thread == 0) num_last = num_longer = 0;
  __syncthreads();
  const LastChunk own = LastChunkOfRow(rows, buffers, row);
  for (int r = thread; r < rows.num_rows; r += kPlanThreads) {
    const LastChunk last = LastChunkOfRow(rows, buffers, r);
    if (last.len == 0) continue;
    atomicAdd(&num_last, 1);
    atomicAdd(&all[last.chunk], 1);
    if (r < row) atomicAdd(&before[last.chunk], 1);
    if (last.len > own.len || (last.len == own.len && r < row)) atomicAdd(&num_longer, 1);
  }
  __syncthreads();
  if (thread == 0) {
    for (int n = buffers.max_chunks - 1; n > 0; --n) {
      all[n] += all[n + 1];
      before[n] += before[n + 1];
    }
  }
  __syncthreads();

  const auto num_full_before = [&](int chunk) {
    int num_items = 0;
    for (int n = 1; n <= chunk; ++n) num_items += all[n];
    return num_items;
  };
  const int num_full = num_full_before(buffers.max_chunks);
  if (row == 0 && thread == 0) *buffers.num_items = num_full + num_last;
  PutItems(rows, buffers, row, [&](int chunk) {
    return chunk == own.chunk ? num_full + num_longer : num_full_before(chunk) + before[chunk + 1];
  });
}

// For a step of `num_rows`.
DecodeBuffers BuffersOf(const DecodeWorkspace& workspace, const KvPageLayout& layout,
                        int num_rows) {
  const Limits& limits = workspace.limits();
  const Places places(limits);
  uint8_t* const base = workspace.data();
  const bool splits = SplitsRows(layout, num_rows, limits.num_kv_heads);
  const int max_chunks = MaxChunks(limits.max_context_len);
  return {.num_items = reinterpret_cast<int32_t*>(base),
          .items = reinterpret_cast<DecodeItem*>(base + places.items),
          .splits = splits,
          .max_chunks = max_chunks,
          .slots_per_row = splits ? SlotsOfSplitRow(limits) : max_chunks,
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

absl::Status PlanDecode(const StepRows& rows, const KvPageLayout& layout,
                        const DecodeWorkspace& workspace, cudaStream_t stream) {
  if (rows.num_rows == 0) return absl::OkStatus();
  if (rows.num_rows > workspace.limits().max_rows) {
    return absl::InvalidArgumentError("PlanDecode: more rows than the workspace was made for");
  }
  const DecodeBuffers buffers = BuffersOf(workspace, layout, rows.num_rows);
  return CudaStatus(LaunchOverlapped(buffers.splits ? PlanFewKernel : PlanKernel,
                                     dim3(static_cast<unsigned>(rows.num_rows)), kPlanThreads, 0, 1,
                                     stream, rows, buffers),
                    "PlanDecode");
}

bool DecodeWritesRows(const AttentionArgs& args, const KvWriteLayer& weights) {
  const auto as_is = [](const CacheSpec& spec) {
    return spec.code_type == CodeType::kNone && spec.transform == CacheSpec::Transform::kNone;
  };
  return HasBf16Pages(args.cache.layout) && HasFastDecode(args) && args.rows.sequences == nullptr &&
         as_is(weights.key.spec) && as_is(weights.value.spec) && weights.q_bias == nullptr &&
         weights.k_bias == nullptr && weights.v_bias == nullptr && weights.q_norm == nullptr &&
         weights.k_norm == nullptr;
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
  const DecodeBuffers buffers = BuffersOf(workspace, args.cache.layout, args.rows.num_rows);
  const absl::Status status = FastDecode(args, buffers, stream);
  return status.ok() ? MergeChunks(args, buffers, stream) : status;
}

}  // namespace assay::engine::cuda
