// The rows' own tokens, where the decode kernel rotates and writes them itself (bf16 pages):
// queries in registers, keys and values into the tile that holds them and into the cache.
//
// Reference: kv_write.cu; bit for bit, since every operation is the same IEEE float32 operation.
#pragma once

#include "engine/kernels/cuda/attention/codes.cuh"
#include "engine/kernels/cuda/attention/decode_pipeline.cuh"
#include "engine/kernels/cuda/attention/ptx.cuh"
#include "engine/kernels/cuda/kv_write.h"

namespace assay::engine::cuda {

// Two neighbouring dims and those 64 further on.
__device__ __forceinline__ void RotatePairs(float2 cosines, float2 sines, uint32_t* low,
                                            uint32_t* high) {
  const float low0 = LowBf16(*low);
  const float low1 = HighBf16(*low);
  const float high0 = LowBf16(*high);
  const float high1 = HighBf16(*high);
  *low = PackBf16(__fsub_rn(__fmul_rn(low0, cosines.x), __fmul_rn(high0, sines.x)),
                  __fsub_rn(__fmul_rn(low1, cosines.y), __fmul_rn(high1, sines.y)));
  *high = PackBf16(__fadd_rn(__fmul_rn(high0, cosines.x), __fmul_rn(low0, sines.x)),
                   __fadd_rn(__fmul_rn(high1, cosines.y), __fmul_rn(low1, sines.y)));
}

// A head's local elements (codes.cuh).
__device__ __forceinline__ void RotateQueryRow(const RopeTables& rope, int position, int lane,
                                               uint32_t (&raw)[kPairs]) {
  using C = Codes<KvCodes::kBf16>;
  const int64_t row = int64_t{position} * (kHeadDim / 2);
#pragma unroll
  for (int i = 0; i < kPairs / 2; i += 2) {  // 4 dims
    const int64_t from = row + C::Dim(2 * i, lane % 4);
    const float4 cosines = __ldg(reinterpret_cast<const float4*>(rope.cosines + from));
    const float4 sines = __ldg(reinterpret_cast<const float4*>(rope.sines + from));
    RotatePairs(make_float2(cosines.x, cosines.y), make_float2(sines.x, sines.y), &raw[i],
                &raw[i + kPairs / 2]);
    RotatePairs(make_float2(cosines.z, cosines.w), make_float2(sines.z, sines.w), &raw[i + 1],
                &raw[i + 1 + kPairs / 2]);
  }
}

// A row's key and value of one head, by a warp: lane i has dims 2i, 2i + 1, and 64 further on, of
// the key, and dims 4i to 4i + 3 of the value.
struct OwnToken {
  uint32_t key[2];
  uint2 value;

  __device__ void Load(const DecodeParams& p, const WarpItem& item, int lane) {
    const __nv_bfloat16* const row = p.query + item.row() * p.query_stride;
    const __nv_bfloat16* const k = row + int64_t{p.num_heads + item.kv_head} * kHeadDim;
    const __nv_bfloat16* const v = k + int64_t{p.cache.num_kv_heads} * kHeadDim;
    const int64_t angles = int64_t{item.position()} * (kHeadDim / 2) + 2 * lane;
    key[0] = reinterpret_cast<const uint32_t*>(k)[lane];
    key[1] = reinterpret_cast<const uint32_t*>(k + kHeadDim / 2)[lane];
    value = reinterpret_cast<const uint2*>(v)[lane];
    RotatePairs(__ldg(reinterpret_cast<const float2*>(p.rope.cosines + angles)),
                __ldg(reinterpret_cast<const float2*>(p.rope.sines + angles)), &key[0], &key[1]);
  }

  // As row `token` of keys and of values.
  __device__ void Store(int token, int lane, uint8_t* keys, uint8_t* values) const {
    constexpr int kRowBytes = kHeadDim * 2;
    const auto place = [&](int byte) {
      return token * kRowBytes + SwizzledChunk(token, byte / 16, kRowBytes) * 16 + byte % 16;
    };
    *reinterpret_cast<uint32_t*>(keys + place(4 * lane)) = key[0];
    *reinterpret_cast<uint32_t*>(keys + place(kRowBytes / 2 + 4 * lane)) = key[1];
    *reinterpret_cast<uint2*>(values + place(8 * lane)) = value;
  }

  // Into the tile, the item's last, and into its page.
  template <typename T>
  __device__ void Put(const DecodeParams& p, const WarpItem& item, int lane, uint8_t* tile) const {
    const int last = item.num_tokens() - 1;
    Store(last % T::kTokens, lane, tile, tile + T::kValuesAt);
    uint8_t* const page =
        p.cache.base + p.cache.PageOffset(p.layer, item.block(last / kKvPageTokens), item.kv_head);
    Store(last % kKvPageTokens, lane, page, page + T::kPage.value_offset());
    // The stage is filled by copies again.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncwarp();
  }
};

}  // namespace assay::engine::cuda
