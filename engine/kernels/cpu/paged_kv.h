// The CPU's KV cache: blocks of pages, float32.
//
// It holds the values that a packed cache of the description would decode to; they were rounded
// once, before Write (description.h, CacheSpec). A page holds 16 tokens of one layer and one KV
// head, keys transposed so that attention sums down columns:
//
//   page = keys [head_dim, 16], values [16, value_stride]
//   cache = [layers, blocks, kv_heads, block_size / 16] pages
//
// The block size is a multiple of 16 and has no influence on results.
// Not thread-safe for one block; distinct blocks are independent.
#pragma once

#include <cstdint>

#include "engine/kernels/cpu/aligned_buffer.h"
#include "engine/kernels/cpu/kernel_table.h"

namespace assay::engine::cpu {

struct KvShape {
  int num_layers = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int block_size = kPageTokens;

  int value_stride() const { return (head_dim + 15) / 16 * 16; }
  int64_t page_floats() const { return int64_t{kPageTokens} * (head_dim + value_stride()); }
  int64_t pages_per_block() const { return block_size / kPageTokens; }
  // Of one block over all layers and heads.
  int64_t block_bytes() const {
    return num_layers * num_kv_heads * pages_per_block() * page_floats() *
           static_cast<int64_t>(sizeof(float));
  }
};

class PagedKv {
 public:
  PagedKv(const KvShape& shape, int64_t num_blocks);

  const KvShape& shape() const { return shape_; }
  int64_t num_blocks() const { return num_blocks_; }

  const float* Page(int layer, int64_t block, int kv_head, int64_t page_of_block) const {
    return pages_.data() + PageOffset(layer, block, kv_head, page_of_block);
  }

  // Stores key and value [head_dim] at a slot (token) of a block.
  void Write(int layer, int64_t block, int kv_head, int slot, const float* key, const float* value);

  // All layers of a block out of the cache, and into it: block_bytes().
  void CopyBlockTo(int64_t block, float* out) const;
  void CopyBlockFrom(int64_t block, const float* in);

 private:
  int64_t BlockFloatsOfLayer() const {
    return shape_.num_kv_heads * shape_.pages_per_block() * shape_.page_floats();
  }
  int64_t PageOffset(int layer, int64_t block, int kv_head, int64_t page_of_block) const {
    return (((layer * num_blocks_ + block) * shape_.num_kv_heads + kv_head) *
                shape_.pages_per_block() +
            page_of_block) *
           shape_.page_floats();
  }

  KvShape shape_;
  int64_t num_blocks_;
  AlignedBuffer pages_;
};

}  // namespace assay::engine::cpu
