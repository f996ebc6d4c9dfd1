// The shape of the decode kernels' work, shared by the plan and the kernels.
#pragma once

#include <absl/status/status.h>

#include <cstdint>

#include "engine/kernels/cuda/attention/attention.h"

namespace assay::engine::cuda {

// Chunks of a context: small ones spread a short context over the device, large ones keep the sums
// that pass through memory few (of a head and chunk as many bytes as 4 tokens of KV4). A warp keeps
// a chunk's blocks, one a lane.
constexpr int kMinChunkPages = 8;
constexpr int kMaxChunkPages = 32;
constexpr int kChunksWanted = 8;  // at most, until chunks are as large as they get

// A chunk of bf16 pages has parts, which each warp sums up by themselves before it adds them, in
// their order, to its sums of the chunk. Where rows are too few to fill the device, each part is a
// work item and the merge adds them, with the same bits.
constexpr int kPartsPerChunk = 8;
constexpr int kDecodeWarps = 4;       // of a block; each has its share of a part
constexpr int kSplitRowHeads = 16;    // rows * KV heads up to which parts are work items
constexpr int kMostSplitChunks = 16;  // of a row; longer ones fill the device as they are

ASSAY_HOST_DEVICE constexpr int PagesOf(int64_t context_len) {
  return static_cast<int>((context_len + kKvPageTokens - 1) / kKvPageTokens);
}

ASSAY_HOST_DEVICE constexpr int ChunkPages(int num_pages) {
  int pages = kMinChunkPages;
  while (pages < kMaxChunkPages && num_pages > pages * kChunksWanted) pages *= 2;
  return pages;
}

ASSAY_HOST_DEVICE constexpr int NumChunks(int num_pages) {
  const int pages = ChunkPages(num_pages);
  return (num_pages + pages - 1) / pages;
}

// Of any context up to this long.
constexpr int MaxChunks(int64_t max_context_len) {
  const int chunks = NumChunks(PagesOf(max_context_len));
  return chunks > kChunksWanted ? chunks : kChunksWanted;
}

ASSAY_HOST_DEVICE constexpr int PartPages(int num_pages) {
  return ChunkPages(num_pages) / kPartsPerChunk;
}

constexpr bool HasBf16Pages(const KvPageLayout& layout) {
  return layout.head_dim == kTensorCoreHeadDim && layout.key.codes == KvCodes::kBf16 &&
         layout.value.codes == KvCodes::kBf16;
}

// Whether rows of so many in a step have their parts for work items, if they are short enough.
constexpr bool SplitsRows(const KvPageLayout& layout, int num_rows, int num_kv_heads) {
  return HasBf16Pages(layout) && num_rows * num_kv_heads <= kSplitRowHeads;
}

ASSAY_HOST_DEVICE constexpr bool IsSplit(int num_pages) {
  return NumChunks(num_pages) <= kMostSplitChunks;
}

// A part, a chunk of a row of several, or a row's only chunk. Every KV head is a work item of it.
struct DecodeItem {
  int32_t row;
  int32_t sequence;  // row of the block tables
  int32_t first_page;
  int32_t num_tokens;  // 1 and more
  int32_t slot;      // of its sums; of a part: of its first warp's. A row's only chunk has none: -1
  int32_t kind;      // bits, below
  int32_t position;  // of the row
};
constexpr int kDecodeItemWords = sizeof(DecodeItem) / sizeof(int32_t);
constexpr int kPartPagesMask = 0xFF;  // of a chunk's parts
constexpr int kIsPart = 0x100;
constexpr int kEndsRow = 0x200;  // its last token is the row's own

// What the kernels need of a workspace.
struct DecodeBuffers {
  int32_t* num_items;
  DecodeItem* items;  // full chunks, then shorter and shorter ones (plan.cu)
  bool splits;        // rows, where IsSplit
  int max_chunks;
  // Sums of parts, and of chunks of rows with several; a row has slots_per_row of them, one for
  // each chunk, or for each warp of each part.
  int slots_per_row;
  float* outputs;  // [slots, num_heads, head_dim], not divided by the sums
  float2* sums;    // [slots, num_heads]: maximum, as a power of two, and sum
};

// True for what the tensor-core kernels take; the others go the plain way.
bool HasFastDecode(const AttentionArgs& args);
absl::Status FastDecode(const AttentionArgs& args, const DecodeBuffers& buffers,
                        cudaStream_t stream);
// Rows of several chunks or of parts: their sums into outputs. Runs behind FastDecode.
absl::Status MergeChunks(const AttentionArgs& args, const DecodeBuffers& buffers,
                         cudaStream_t stream);
// Any head_dim and any layout; rows need not be last of their sequences. Serves prefill too.
absl::Status PlainAttention(const AttentionArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
