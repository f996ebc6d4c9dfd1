// Attention for any head_dim and any page layout, prefill and decode alike: plain and slow, for
// small models and for combinations that no study uses. Float32 throughout; keys stored before RoPE
// are rounded to bf16 where the CPU rounds them.
//
// A warp owns a (row, head). It takes 32 tokens at a time: a token a lane for the scores, then a
// dim a lane for the values. Bound: instructions, about 20 per code.
#include <cuda_bf16.h>

#include <cmath>

#include "engine/kernels/cuda/attention/decode.cuh"

namespace assay::engine::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kWarpSize = 32;
constexpr int kMaxHeadDim = 256;
constexpr int kMaxDimsPerLane = kMaxHeadDim / kWarpSize;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

__device__ float RoundToBf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

__device__ float ReadCode(const uint8_t* part, KvCodes codes, int token, int dim, int head_dim) {
  const CodePlace place = PlaceOfCode(codes, token, dim, head_dim);
  if (codes == KvCodes::kBf16) {
    return __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(part + place.byte));
  }
  const int bits = codes == KvCodes::k3Bit ? 2 : BitsOf(codes);
  int code = part[place.byte] >> place.shift & ((1 << bits) - 1);
  if (codes == KvCodes::k3Bit) {
    const CodePlace third = PlaceOfThirdBit(token, dim, head_dim);
    code |= (part[third.byte] >> third.shift & 1) << 2;
  }
  return static_cast<float>(code);
}

// The grid of a token's row; scale 1 and zero 0 where there is none.
__device__ KvGrid ReadGrid(const uint8_t* part, const KvPartLayout& layout, int token,
                           int head_dim) {
  if (layout.params != KvParams::kPerToken) return {1, 0};
  const uint32_t grid =
      *reinterpret_cast<const uint32_t*>(part + layout.code_bytes(head_dim) + 4 * token);
  return {__uint_as_float(grid & 0xFFFFFF00u), static_cast<float>(grid & 0xFF)};
}

struct Channels {
  const float* scale;
  const float* zero;
  const float* bias;  // may be null

  __device__ float Decode(float code, int dim) const {
    const float value = scale[dim] * (code - zero[dim]);
    return bias == nullptr ? value : RoundToBf16(value + bias[dim]);
  }
};

// q . k of one token, `query` in shared memory.
__device__ float Score(const AttentionArgs& args, const float* query, const uint8_t* page,
                       int token, int64_t position, const Channels& channels) {
  const KvPartLayout& layout = args.cache.layout.key;
  const int head_dim = args.cache.layout.head_dim;
  const int half = head_dim / 2;
  float score = 0;
  if (layout.params == KvParams::kPerChannel) {
    for (int i = 0; i < half; ++i) {
      const float low = channels.Decode(ReadCode(page, layout.codes, token, i, head_dim), i);
      const float high =
          channels.Decode(ReadCode(page, layout.codes, token, i + half, head_dim), i + half);
      const float cosine = args.rope.cosines[position * half + i];
      const float sine = args.rope.sines[position * half + i];
      score = fmaf(query[i], RoundToBf16(low * cosine - high * sine), score);
      score = fmaf(query[i + half], RoundToBf16(high * cosine + low * sine), score);
    }
    return score;
  }
  const KvGrid grid = ReadGrid(page, layout, token, head_dim);
  for (int d = 0; d < head_dim; ++d) {
    const float code = ReadCode(page, layout.codes, token, d, head_dim);
    score = fmaf(query[d], grid.scale * (code - grid.zero), score);
  }
  return score;
}

// Grid: [rows, heads / kWarps].
__global__ void __launch_bounds__(kWarps* kWarpSize)
    PlainKernel(const __grid_constant__ AttentionArgs args) {
  __shared__ float queries[kWarps][kMaxHeadDim];
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int row = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y) * kWarps + warp;
  const int context_len = args.rows.positions[row] + 1;
  if (head >= args.num_heads || context_len <= 0) return;

  const KvPageLayout& layout = args.cache.layout;
  const int head_dim = layout.head_dim;
  const int kv_head = head / (args.num_heads / args.cache.num_kv_heads);
  const int sequence = args.rows.sequences == nullptr ? row : args.rows.sequences[row];
  const int32_t* const table =
      args.rows.block_tables + int64_t{sequence} * args.rows.block_table_stride;
  const Channels channels = {
      args.key_scale + kv_head * head_dim, args.key_zero + kv_head * head_dim,
      args.key_bias == nullptr ? nullptr : args.key_bias + kv_head * head_dim};
  float* const query = queries[warp];
  const __nv_bfloat16* const from = args.query + row * args.query_stride + int64_t{head} * head_dim;
  for (int d = lane; d < head_dim; d += kWarpSize) query[d] = __bfloat162float(from[d]);
  __syncwarp();

  const float scale = 1.0f / sqrtf(static_cast<float>(head_dim));
  float max = -INFINITY;
  float sum = 0;
  float output[kMaxDimsPerLane] = {};
  for (int begin = 0; begin < context_len; begin += kWarpSize) {
    const uint8_t* const page =
        args.cache.base + args.cache.PageOffset(args.layer, table[begin / kKvPageTokens], kv_head);
    const int first = begin % kKvPageTokens;
    float score = -INFINITY;
    if (begin + lane < context_len) {
      score = scale * Score(args, query, page, first + lane, begin + lane, channels);
    }
    float new_max = fmaxf(max, score);
    for (int distance = 16; distance > 0; distance /= 2) {
      new_max = fmaxf(new_max, __shfl_xor_sync(kAllLanes, new_max, distance));
    }
    const float factor = expf(max - new_max);
    const float weight = expf(score - new_max);
    max = new_max;
    sum = sum * factor + weight;
#pragma unroll
    for (int i = 0; i < kMaxDimsPerLane; ++i) output[i] *= factor;
    const uint8_t* const values = page + layout.value_offset();
    for (int t = 0; t < min(kWarpSize, context_len - begin); ++t) {
      const float p = __shfl_sync(kAllLanes, weight, t);
      const KvGrid grid = ReadGrid(values, layout.value, first + t, head_dim);
#pragma unroll
      for (int i = 0; i < kMaxDimsPerLane; ++i) {
        const int d = lane + i * kWarpSize;
        if (d >= head_dim) break;
        const float code = ReadCode(values, layout.value.codes, first + t, d, head_dim);
        output[i] = fmaf(p, grid.scale * (code - grid.zero), output[i]);
      }
    }
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, distance);
  }
  __nv_bfloat16* const to = args.output + row * args.output_stride + int64_t{head} * head_dim;
#pragma unroll
  for (int i = 0; i < kMaxDimsPerLane; ++i) {
    const int d = lane + i * kWarpSize;
    if (d < head_dim) to[d] = __float2bfloat16_rn(output[i] / sum);
  }
}

}  // namespace

absl::Status PlainAttention(const AttentionArgs& args, cudaStream_t stream) {
  if (args.rows.num_rows == 0) return absl::OkStatus();
  const dim3 grid(static_cast<unsigned>(args.rows.num_rows),
                  static_cast<unsigned>((args.num_heads + kWarps - 1) / kWarps));
  PlainKernel<<<grid, kWarps * kWarpSize, 0, stream>>>(args);
  return CudaStatus(cudaGetLastError(), "PlainAttention");
}

}  // namespace assay::engine::cuda
