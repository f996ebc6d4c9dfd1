// Attention over the paged cache: softmax(q K^T / sqrt(head_dim)) V for the rows of a step.
//
// Decode. A context is cut into chunks of whole pages, whose size follows from the context's length
// alone; each (chunk, KV head) is a work item, and a row's chunks are merged in their order. So a
// row's result is a function of its query and its context, whatever else is in the batch. Chunks of
// bf16 are sums of parts, in their order, and where rows are few their parts are work items. Sizes
// that change from step to step are read from device memory: PlanDecode turns the rows' positions
// into a list of work items on the device, once per step and for all layers, and both can be
// captured in a graph for a fixed number of rows.
//
// Prefill. Rows of a prompt, or of a part of one, see the cached tokens up to themselves, in tiles
// of 64 tokens cut at multiples of 64. So a row's result does not depend on where the prompt was
// cut.
//
// Prefill and decode add in different orders: their results agree to rounding, not to the bit.
// Reference: engine/kernels/cpu/attention.h. Pages are read as kv_pages.h says; nothing behind a
// row's context is used, whatever lies there.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/kv_pages.h"
#include "engine/kernels/cuda/kv_write.h"

namespace assay::engine::cuda {

// One layer's call. Pointers are device memory.
struct AttentionArgs {
  StepRows rows;  // as given to WriteKv
  int num_heads = 0;
  KvCache cache;
  int layer = 0;
  // Keys stored before RoPE (KvParams::kPerChannel): their grid, and the bias where codes were
  // taken before it. [kv_heads, head_dim], float32.
  const float* key_scale = nullptr;
  const float* key_zero = nullptr;
  const float* key_bias = nullptr;  // null: none, or within the codes
  RopeTables rope;
  // Decode only: the plan, what `rows` points to, and all keys and values but the rows' own last
  // tokens were there before the kernel in front of this one began. They are fetched while it runs.
  bool fetches_early = false;
  // Decode only, where DecodeWritesRows: `query` holds rows of q, k, v as they were projected, and
  // this call is WriteKv too, with the same bits.
  bool projected = false;

  const __nv_bfloat16* query = nullptr;  // [rows, num_heads, head_dim], 16-byte aligned
  int64_t query_stride = 0;              // elements
  __nv_bfloat16* output = nullptr;       // likewise; padding rows are left alone
  int64_t output_stride = 0;
};

// What decode needs besides: made once, for the largest step.
class DecodeWorkspace {
 public:
  struct Limits {
    int max_rows = 0;
    int64_t max_context_len = 0;
    int num_heads = 0;
    int num_kv_heads = 0;
    int head_dim = 0;
  };
  // Of device memory, for the memory plan.
  static int64_t Bytes(const Limits& limits);
  static absl::StatusOr<DecodeWorkspace> Make(const Limits& limits);

  const Limits& limits() const { return limits_; }

  // For the kernels.
  uint8_t* data() const { return memory_.data(); }

 private:
  Limits limits_;
  DeviceBuffer<uint8_t> memory_;
};

// Fills the workspace's list of work items from rows.positions. Once per step, before the layers.
// `layout`: of the cache that the layers read.
absl::Status PlanDecode(const StepRows& rows, const KvPageLayout& layout,
                        const DecodeWorkspace& workspace, cudaStream_t stream);

// Whether DecodeAttention can write the rows' own keys and values: in bf16 pages, only rotated
// before, and each row of a sequence of its own.
bool DecodeWritesRows(const AttentionArgs& args, const KvWriteLayer& weights);

// Each row is the last token of its sequence. INVALID_ARGUMENT when the shapes are not those of
// the workspace.
absl::Status DecodeAttention(const AttentionArgs& args, const DecodeWorkspace& workspace,
                             cudaStream_t stream);

// A run of rows of one sequence with consecutive positions.
struct PrefillChunk {
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t first_position = 0;
  int32_t sequence = 0;  // row of the block tables
};

// Chunks cut into what a thread block takes, longest contexts first. To be copied to the device.
std::vector<PrefillChunk> MakePrefillTiles(std::span<const PrefillChunk> chunks, int num_heads,
                                           int num_kv_heads);

// `tiles`: device memory, `num_tiles` of them. args.rows are those that were given to WriteKv.
absl::Status PrefillAttention(const AttentionArgs& args, const PrefillChunk* tiles, int num_tiles,
                              cudaStream_t stream);

}  // namespace assay::engine::cuda
