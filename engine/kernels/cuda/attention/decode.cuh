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

// A (row, chunk). Every KV head is a work item of it.
struct DecodeItem {
  int32_t row;
  int32_t sequence;  // row of the block tables
  int32_t chunk;
  int32_t first_page;
  int32_t num_tokens;  // 1 and more
  int32_t num_chunks;  // of the row
};
constexpr int kDecodeItemWords = sizeof(DecodeItem) / sizeof(int32_t);

// What the kernels need of a workspace.
struct DecodeBuffers {
  int32_t* num_items;
  DecodeItem* items;  // first chunks of all rows, then second ones, ...
  // Sums of rows with several chunks, by slot = row * max_chunks + chunk:
  int max_chunks;
  float* outputs;  // [slots, num_heads, head_dim], not divided by the sums
  float2* sums;    // [slots, num_heads]: maximum, as a power of two, and sum
};

// True for what the tensor-core kernels take; the others go the plain way.
bool HasFastDecode(const AttentionArgs& args);
absl::Status FastDecode(const AttentionArgs& args, const DecodeBuffers& buffers,
                        cudaStream_t stream);
// Rows of several chunks: their sums into outputs. Runs behind FastDecode.
absl::Status MergeChunks(const AttentionArgs& args, const DecodeBuffers& buffers,
                         cudaStream_t stream);
// Any head_dim and any layout; rows need not be last of their sequences. Serves prefill too.
absl::Status PlainAttention(const AttentionArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
