// From the projections of a step's rows to queries ready for attention and keys and values in the
// cache: bias, per-head norm, RoPE, transform, rounding to the cache's grid, packing.
//
// Reference: CpuDecoder::PrepareRow with CacheQuantizer (engine/quant/cache_quantizer.h). Given the
// same bf16 projections, codes and parameters are the CPU's bit for bit, since every operation is
// one IEEE float32 operation in the same order; values are rounded to bf16 where the CPU rounds
// them. Queries that go through a transform are rounded to bf16 after it, which
// the CPU does not do. A scale is stored with 16 bits of precision (kv_pages.h); its codes come
// from the unrounded one.
#pragma once

#include <absl/status/status.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/kernels/cuda/kv_pages.h"
#include "engine/quant/description.h"

namespace assay::engine::cuda {

// The rows of a step: where each token stands. Everything is in device memory, and was there before
// the kernel in front of the one that reads it began.
struct StepRows {
  int num_rows = 0;
  const int32_t* positions = nullptr;  // [rows]; negative: a padding row, which touches nothing
  const int32_t* sequences = nullptr;  // [rows]: row of the block tables; null: row i has table i
  const int32_t* block_tables = nullptr;  // [sequences, block_table_stride]
  int block_table_stride = 0;
};

// What happens to K or V of one layer on the way into the cache. Tables are device memory, float32.
struct CacheRounding {
  CacheSpec spec;
  float clip_max = 1;  // spec.clip_ratio, or the learned factors
  float clip_min = 1;
  const float* scale = nullptr;         // static per channel: [kv_heads, head_dim]
  const float* zero = nullptr;          //   likewise, of unsigned codes: 2^(bits - 1) if symmetric
  const float* matrix = nullptr;        // Transform::kMatrix: [head_dim, head_dim]
  const float* query_matrix = nullptr;  //   keys only
};

// One layer's part. Null pointers: no such bias or norm.
struct KvWriteLayer {
  const float* q_bias = nullptr;  // [num_heads * head_dim]; where the product has not added it
  const float* k_bias = nullptr;  // [num_kv_heads * head_dim]
  const float* v_bias = nullptr;
  const float* q_norm = nullptr;  // [head_dim]
  const float* k_norm = nullptr;
  float norm_eps = 0;
  CacheRounding key;
  CacheRounding value;
};

// cos and sin of position * frequency: [positions, head_dim / 2] each, as RopeTable makes them; 64
// positions at least.
struct RopeTables {
  const float* cosines = nullptr;
  const float* sines = nullptr;
};

struct KvWriteArgs {
  StepRows rows;
  int num_heads = 0;
  KvCache cache;
  int layer = 0;
  KvWriteLayer weights;
  RopeTables rope;
  // [rows, num_heads + 2 * num_kv_heads, head_dim]: q, k, v without the biases given above.
  const __nv_bfloat16* qkv = nullptr;
  int64_t qkv_stride = 0;          // elements
  __nv_bfloat16* query = nullptr;  // [rows, num_heads, head_dim]; may be qkv itself
  int64_t query_stride = 0;
};

// FAILED_PRECONDITION when the cache's layout is not that of the specs.
absl::Status WriteKv(const KvWriteArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
