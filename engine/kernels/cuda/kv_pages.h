// How keys and values lie in the CUDA cache. Plain C++: the memory plan, the swapping of blocks,
// the kernels and their tests read the same lines.
//
// A block holds 64 tokens of every layer and KV head. The cache is one piece of memory,
//
//   cache = [layers, blocks, kv_heads] pages,  page = keys, values
//   keys (values alike) = codes of 64 tokens, then 64 parameters of 4 bytes where there are any
//
// Codes of a token are a row: bf16 values, or integers of 8 or 4 bits, lowest bits first; 3-bit
// codes are two planes, [64, head_dim / 4] bytes of the lower two bits, then [64, head_dim / 8] of
// the third. Codes of fewer bits are stored in the next larger; symmetric ones as q + 2^(bits - 1),
// so that each is an unsigned integer with a zero point. What has no codes here (MXFP4, groups
// within a head, keys rounded per token before RoPE) is kept as the bf16 values that it decodes to.
//
// A parameter is (scale, zero) of one token's row: the scale a float32 rounded to its upper 24
// bits, the zero point in the lowest byte. So scales keep their range and 16 bits of precision, at
// the size of two halves. Static per-channel grids have no parameters in the page.
//
// With head_dim 128 the 16-byte pieces of a row are permuted among themselves (SwizzledChunk), so
// that 8 rows' equal pieces lie in different banks of shared memory, where pages go unchanged; and
// the third bits of dims d and d + 64 are neighbours, so that a bit of each is found with its two
// others by one shift. Other head_dims are stored in plain order.
#pragma once

#include <absl/status/statusor.h>

#include <bit>
#include <cstdint>

#include "engine/quant/description.h"

#ifdef __CUDACC__
#define ASSAY_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define ASSAY_HOST_DEVICE inline
#endif

namespace assay::engine::cuda {

inline constexpr int kKvPageTokens = 64;
inline constexpr int kTensorCoreHeadDim = 128;  // what the fast kernels are made for

enum class KvCodes : int8_t { kBf16, k8Bit, k4Bit, k3Bit };
enum class KvParams : int8_t { kNone, kPerToken, kPerChannel };

ASSAY_HOST_DEVICE constexpr int BitsOf(KvCodes codes) {
  return codes == KvCodes::kBf16   ? 16
         : codes == KvCodes::k8Bit ? 8
         : codes == KvCodes::k4Bit ? 4
                                   : 3;
}

// K or V of a page. Keys with per-channel parameters are stored before RoPE (and before their bias,
// where the layer's tables hold one); all others as attention multiplies them.
struct KvPartLayout {
  KvCodes codes = KvCodes::kBf16;
  KvParams params = KvParams::kNone;

  ASSAY_HOST_DEVICE constexpr int code_bytes(int head_dim) const {
    return kKvPageTokens * head_dim * BitsOf(codes) / 8;
  }
  ASSAY_HOST_DEVICE constexpr int bytes(int head_dim) const {
    return code_bytes(head_dim) + (params == KvParams::kPerToken ? kKvPageTokens * 4 : 0);
  }
  bool operator==(const KvPartLayout&) const = default;
};

struct KvPageLayout {
  int head_dim = 0;  // a multiple of 8, at most 256
  KvPartLayout key;
  KvPartLayout value;

  ASSAY_HOST_DEVICE constexpr int value_offset() const { return key.bytes(head_dim); }
  ASSAY_HOST_DEVICE constexpr int page_bytes() const {
    return key.bytes(head_dim) + value.bytes(head_dim);
  }
  bool operator==(const KvPageLayout&) const = default;
};

// INVALID_ARGUMENT for a head_dim that pages cannot hold.
absl::StatusOr<KvPageLayout> MakeKvPageLayout(const CacheSpec& key, const CacheSpec& value,
                                              int head_dim);

// Where the pages are. Kernels take it by value.
struct KvCache {
  uint8_t* base = nullptr;  // 256-byte aligned
  int64_t num_blocks = 0;
  int num_layers = 0;
  int num_kv_heads = 0;
  KvPageLayout layout;

  int64_t block_bytes_of_layer() const { return int64_t{num_kv_heads} * layout.page_bytes(); }
  int64_t block_bytes() const { return num_layers * block_bytes_of_layer(); }
  int64_t bytes() const { return num_blocks * block_bytes(); }
  // Pages of `block` in `layer`: [kv_heads], contiguous. A block's layers are num_blocks apart.
  ASSAY_HOST_DEVICE int64_t PageOffset(int layer, int64_t block, int kv_head) const {
    return ((layer * num_blocks + block) * num_kv_heads + kv_head) * layout.page_bytes();
  }
};

// The place of 16-byte piece `chunk` of row `token` among the row's pieces. A warp reads keys as 8
// rows by 4 columns of 16 or 8 bytes, and values as 8 rows of one piece (ldmatrix): the lowest bit
// of the row that is not in the address already goes to the highest bit of the piece.
ASSAY_HOST_DEVICE constexpr int SwizzledChunk(int token, int chunk, int row_bytes) {
  if (row_bytes >= 128) return chunk ^ ((token & 1) << 2 | (token >> 1 & 3));
  if (row_bytes == 64) return chunk ^ ((token & 2) | (token >> 2 & 1));
  if (row_bytes == 32) return chunk ^ (token >> 2 & 1);
  return chunk;
}

// Where some bits of one code are: bits [shift, shift + BitsOf) of the byte (bf16: of two).
struct CodePlace {
  int byte = 0;
  int shift = 0;
};

ASSAY_HOST_DEVICE constexpr CodePlace PlaceInRows(int token, int dim, int bits, int head_dim) {
  const int row_bytes = head_dim * bits / 8;
  const int byte = dim * bits / 8;
  const int place = head_dim == kTensorCoreHeadDim
                        ? SwizzledChunk(token, byte / 16, row_bytes) * 16 + byte % 16
                        : byte;
  return {token * row_bytes + place, dim * bits % 8};
}

// The place of a code relative to the part's first byte; of 3-bit codes their lower two bits.
ASSAY_HOST_DEVICE constexpr CodePlace PlaceOfCode(KvCodes codes, int token, int dim, int head_dim) {
  return PlaceInRows(token, dim, codes == KvCodes::k3Bit ? 2 : BitsOf(codes), head_dim);
}

ASSAY_HOST_DEVICE constexpr CodePlace PlaceOfThirdBit(int token, int dim, int head_dim) {
  const int plane = kKvPageTokens * head_dim / 4;
  const int bit = head_dim == kTensorCoreHeadDim ? dim % 64 / 8 * 16 + dim % 8 * 2 + dim / 64 : dim;
  return {plane + token * head_dim / 8 + bit / 8, bit % 8};
}

// A token's parameters in 32 bits.
struct KvGrid {
  float scale = 0;
  float zero = 0;
};

ASSAY_HOST_DEVICE constexpr uint32_t PackGrid(uint32_t scale_bits, uint32_t zero) {
  const uint32_t rounded = scale_bits + 0x7F + (scale_bits >> 8 & 1);  // to nearest, ties to even
  // The largest scales would round to infinity.
  return ((rounded >= 0x7F800000u ? 0x7F7FFF00u : rounded) & 0xFFFFFF00u) | zero;
}

}  // namespace assay::engine::cuda
