#include "engine/kernels/cpu/paged_kv.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"

namespace assay::engine::cpu {

PagedKv::PagedKv(const KvShape& shape, int64_t num_blocks)
    : shape_(shape),
      num_blocks_(num_blocks),
      pages_(static_cast<size_t>(num_blocks * shape.block_bytes()) / sizeof(float)) {
  ASSAY_CHECK(shape.block_size > 0 && shape.block_size % kPageTokens == 0, "block_size={}",
              shape.block_size);
}

void PagedKv::Write(int layer, int64_t block, int kv_head, int slot, const float* key,
                    const float* value) {
  float* page = pages_.data() + PageOffset(layer, block, kv_head, slot / kPageTokens);
  const int token = slot % kPageTokens;
  for (int d = 0; d < shape_.head_dim; ++d) page[d * kPageTokens + token] = key[d];
  float* values = page + kPageTokens * shape_.head_dim + token * shape_.value_stride();
  std::memcpy(values, value, sizeof(float) * shape_.head_dim);
}

void PagedKv::CopyBlockTo(int64_t block, float* out) const {
  const int64_t size = BlockFloatsOfLayer();
  for (int layer = 0; layer < shape_.num_layers; ++layer) {
    std::copy_n(Page(layer, block, 0, 0), size, out + layer * size);
  }
}

void PagedKv::CopyBlockFrom(int64_t block, const float* in) {
  const int64_t size = BlockFloatsOfLayer();
  for (int layer = 0; layer < shape_.num_layers; ++layer) {
    std::copy_n(in + layer * size, size, pages_.data() + PageOffset(layer, block, 0, 0));
  }
}

}  // namespace assay::engine::cpu
