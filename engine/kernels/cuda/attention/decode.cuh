// The shape of the decode kernel's work, shared by the plan and the kernels.
#pragma once

#include <absl/status/status.h>

#include <cstdint>

#include "engine/kernels/cuda/attention/attention.h"

namespace assay::engine::cuda {

constexpr int kPagesPerChunk = kDecodeChunkTokens / kKvPageTokens;

// A (row, chunk), of at most 32 words, so that a warp reads it at once. Every KV head is a work
// item of it.
struct DecodeItem {
  int32_t row;
  int32_t chunk;
  int32_t num_tokens;  // of the chunk: 1..kDecodeChunkTokens
  int32_t num_chunks;  // of the row
  int32_t blocks[kPagesPerChunk];
};
constexpr int kDecodeItemWords = sizeof(DecodeItem) / sizeof(int32_t);
static_assert(kDecodeItemWords <= 32);

// What the kernels need of a workspace.
struct DecodeBuffers {
  const int32_t* num_items;
  const DecodeItem* items;
  int32_t* arrivals;  // [rows, kv_heads], zeros between launches
  float* outputs;     // [items, num_heads, head_dim], not divided by the sums
  float* sums;        // [items, num_heads, 2]: maximum and sum
};

// True for what the tensor-core kernels take; the others go the plain way.
bool HasFastDecode(const AttentionArgs& args);
absl::Status FastDecode(const AttentionArgs& args, const DecodeBuffers& buffers,
                        cudaStream_t stream);
// Any head_dim and any layout; rows need not be last of their sequences. Serves prefill too.
absl::Status PlainAttention(const AttentionArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
