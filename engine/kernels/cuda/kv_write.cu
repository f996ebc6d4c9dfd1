// Projections to queries, and to keys and values in the cache; see kv_write.h for the order of
// operations and what agrees with the CPU bit for bit. Multiplications and additions that the CPU
// rounds one by one are written as intrinsics, which nvcc does not fuse.
//
// A warp owns one head of one row, in shared memory: 256 bytes are read and 16 (3 bits) to 256
// written per head, so the bound is memory, but at decode sizes (256 rows of 36 heads, 4 MB) it is
// latency: a launch. What does not depend on the kernels in front is read before they have ended.
#include <cuda_bf16.h>

#include <cfloat>
#include <cmath>
#include <string>

#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/kv_write.h"
#include "engine/kernels/cuda/launch.cuh"

namespace assay::engine::cuda {
namespace {

constexpr int kWarpsPerBlock = 8;
constexpr int kWarpSize = 32;
constexpr int kMaxHeadDim = 256;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// CacheRounding for the device.
struct Rounding {
  enum class Grid : int8_t { kNone, kOwn, kStatic, kMxfp4 };
  Grid grid = Grid::kNone;
  bool symmetric = false;
  bool ties_away = false;
  CacheSpec::Transform transform = CacheSpec::Transform::kNone;
  CacheSpec::Position position = CacheSpec::Position::kAfterRope;
  int group_size = 0;
  // Codes are unsigned here; a symmetric grid is one with the zero point 2^(bits - 1).
  float max_code = 0;
  float symmetric_zero = 0;
  float clip_max = 1;
  float clip_min = 1;
  const float* scale = nullptr;
  const float* zero = nullptr;
  const float* matrix = nullptr;
  const float* query_matrix = nullptr;
};

struct Params {
  StepRows rows;
  KvCache cache;
  int layer = 0;
  int num_heads = 0;
  const float* q_bias = nullptr;
  const float* k_bias = nullptr;
  const float* v_bias = nullptr;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float norm_eps = 0;
  float hadamard_factor = 0;
  Rounding key;
  Rounding value;
  RopeTables rope;
  const __nv_bfloat16* qkv = nullptr;
  int64_t qkv_stride = 0;
  __nv_bfloat16* query = nullptr;
  int64_t query_stride = 0;
};

__device__ float RoundToBf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

// A lane's share of a position's angles.
constexpr int kMostTurns = kMaxHeadDim / 2 / kWarpSize;
struct Angles {
  float cosines[kMostTurns];
  float sines[kMostTurns];

  __device__ void Load(const RopeTables& rope, int position, int half, int lane) {
    const int64_t row = int64_t{position} * half;
#pragma unroll
    for (int turn = 0; turn < kMostTurns; ++turn) {
      const int i = lane + turn * kWarpSize;
      if (i >= half) break;
      cosines[turn] = rope.cosines[row + i];
      sines[turn] = rope.sines[row + i];
    }
  }
};

// One head of one row and the warp that works on it. `x` and `codes` are shared memory of the warp;
// lane i touches the elements i, i + 32, ... unless a method says otherwise.
struct Head {
  float* x;        // [dim]
  uint8_t* codes;  // [dim]
  int dim;
  int lane;

  __device__ void Load(const __nv_bfloat16* from) const {
    for (int d = lane; d < dim; d += kWarpSize) x[d] = __bfloat162float(from[d]);
    __syncwarp();
  }

  __device__ void Store(__nv_bfloat16* to) const {
    for (int d = lane; d < dim; d += kWarpSize) to[d] = __float2bfloat16_rn(x[d]);
  }

  __device__ void AddBias(const float* bias) const {
    if (bias == nullptr) return;
    for (int d = lane; d < dim; d += kWarpSize) x[d] = RoundToBf16(x[d] + bias[d]);
    __syncwarp();
  }

  // Sums in 16 chains and a tree, as the CPU's RmsNorm.
  __device__ void Normalize(const float* weight, float eps) const {
    if (weight == nullptr) return;
    constexpr int kChains = 16;
    float sum = 0;
    if (lane < kChains) {
      for (int d = lane; d < dim; d += kChains) sum = __fmaf_rn(x[d], x[d], sum);
    }
    for (int half = kChains / 2; half > 0; half /= 2) sum += __shfl_down_sync(kAllLanes, sum, half);
    sum = __shfl_sync(kAllLanes, sum, 0);
    const float factor = 1.0f / sqrtf(sum / static_cast<float>(dim) + eps);
    for (int d = lane; d < dim; d += kWarpSize) x[d] = RoundToBf16(x[d] * factor * weight[d]);
    __syncwarp();
  }

  __device__ void Rotate(const Angles& angles) const {
    const int half = dim / 2;
#pragma unroll
    for (int turn = 0; turn < kMostTurns; ++turn) {
      const int i = lane + turn * kWarpSize;
      if (i >= half) break;
      const float cosine = angles.cosines[turn];
      const float sine = angles.sines[turn];
      const float low = x[i];
      const float high = x[i + half];
      x[i] = RoundToBf16(__fsub_rn(__fmul_rn(low, cosine), __fmul_rn(high, sine)));
      x[i + half] = RoundToBf16(__fadd_rn(__fmul_rn(high, cosine), __fmul_rn(low, sine)));
    }
    __syncwarp();
  }

  // Sylvester's matrix of a power of two.
  __device__ void Hadamard(float factor) const {
    for (int stride = 1; stride < dim; stride *= 2) {
      for (int i = lane; i < dim / 2; i += kWarpSize) {
        const int low = i / stride * 2 * stride + i % stride;
        const float a = x[low];
        const float b = x[low + stride];
        x[low] = a + b;
        x[low + stride] = a - b;
      }
      __syncwarp();
    }
    for (int d = lane; d < dim; d += kWarpSize) x[d] *= factor;
    __syncwarp();
  }

  // x <- x * matrix [dim, dim].
  __device__ void Multiply(const float* matrix) const {
    float product[kMaxHeadDim / kWarpSize] = {};
    for (int k = 0; k < dim; ++k) {
      const float factor = x[k];
#pragma unroll
      for (int i = 0; i < kMaxHeadDim / kWarpSize; ++i) {
        const int d = lane + i * kWarpSize;
        if (d < dim) product[i] = __fadd_rn(product[i], __fmul_rn(factor, matrix[k * dim + d]));
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kMaxHeadDim / kWarpSize; ++i) {
      const int d = lane + i * kWarpSize;
      if (d < dim) x[d] = product[i];
    }
    __syncwarp();
  }

  // Value d becomes what its code decodes to; the code goes to `codes`.
  __device__ void RoundOne(int d, float scale, float zero, const Rounding& rounding) const {
    const float highest = rounding.max_code - zero;
    float steps = x[d] / scale;
    steps = steps > -zero ? steps : -zero;  // a NaN becomes the lowest
    steps = steps < highest ? steps : highest;
    steps = rintf(steps);
    x[d] = scale * steps;
    codes[d] = static_cast<uint8_t>(static_cast<int>(steps + zero));
  }

  __device__ void RoundToStaticGrid(const Rounding& rounding, int head) const {
    for (int d = lane; d < dim; d += kWarpSize) {
      RoundOne(d, rounding.scale[head * dim + d], rounding.zero[head * dim + d], rounding);
    }
    __syncwarp();
  }

  // Groups of their own parameters (ParamsOfRange); returns those of the last.
  __device__ KvGrid RoundToOwnGrid(const Rounding& rounding) const {
    KvGrid grid;
    for (int begin = 0; begin < dim; begin += rounding.group_size) {
      const int end = begin + rounding.group_size;
      float max = 0;
      float min = 0;
      for (int d = begin + lane; d < end; d += kWarpSize) {
        max = x[d] > max ? x[d] : max;
        min = x[d] < min ? x[d] : min;
      }
      for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
        const float other_max = __shfl_xor_sync(kAllLanes, max, distance);
        const float other_min = __shfl_xor_sync(kAllLanes, min, distance);
        max = other_max > max ? other_max : max;
        min = other_min < min ? other_min : min;
      }
      grid = OwnGrid(min * rounding.clip_min, max * rounding.clip_max, rounding);
      for (int d = begin + lane; d < end; d += kWarpSize) {
        RoundOne(d, grid.scale, grid.zero, rounding);
      }
    }
    __syncwarp();
    return grid;
  }

  __device__ static KvGrid OwnGrid(float min, float max, const Rounding& rounding) {
    const auto clamp = [](float scale) { return fminf(fmaxf(scale, FLT_MIN), FLT_MAX); };
    if (rounding.symmetric) {
      const float magnitude = fmaxf(-min, max);
      const float zero = rounding.symmetric_zero;
      return {magnitude == 0 ? 1.0f : clamp(magnitude / (zero - 1)), zero};
    }
    if (min == 0 && max == 0) {
      min = -1;
      max = 1;
    }
    const float scale = clamp((max - min) / rounding.max_code);
    return {scale, fminf(fmaxf(rintf(-min / scale), 0.0f), rounding.max_code)};
  }

  // Blocks of 32 on the E2M1 grid (RoundToMxfp4), a value a lane.
  __device__ void RoundToMxfp4(bool ties_away) const {
    for (int d = lane; d < dim; d += kWarpSize) {
      float largest = fminf(fabsf(x[d]), FLT_MAX);  // of a NaN: FLT_MAX
      if (isnan(x[d])) largest = 0;
      for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
      }
      const int floor_log2 = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
      const int exponent = max(floor_log2 - 2, -127);
      const float scaled = fabsf(x[d]) * ldexpf(1.0f, -exponent);
      const float magnitude = scaled < 8.0f ? scaled : 8.0f;
      const float step = magnitude < 2 ? 0.5f : magnitude < 4 ? 1.0f : 2.0f;
      const float in_steps = magnitude / step;
      const float below = floorf(in_steps);
      const float rounded =
          ties_away ? below + (in_steps - below >= 0.5f ? 1.0f : 0.0f) : rintf(in_steps);
      x[d] = copysignf(fminf(rounded * step, 6.0f) * ldexpf(1.0f, exponent), x[d]);
    }
    __syncwarp();
  }

  // CacheQuantizer::Apply.
  __device__ KvGrid Round(const Rounding& rounding, int head, float hadamard_factor) const {
    if (rounding.transform == CacheSpec::Transform::kHadamard) Hadamard(hadamard_factor);
    if (rounding.transform == CacheSpec::Transform::kMatrix) Multiply(rounding.matrix);
    switch (rounding.grid) {
      case Rounding::Grid::kNone:
        return {};
      case Rounding::Grid::kMxfp4:
        RoundToMxfp4(rounding.ties_away);
        return {};
      case Rounding::Grid::kStatic:
        RoundToStaticGrid(rounding, head);
        return {};
      case Rounding::Grid::kOwn:
        return RoundToOwnGrid(rounding);
    }
    return {};
  }

  // The codes of 8 consecutive dims from `d`, `bits` bits each from bit `shift` up.
  __device__ uint64_t Gather(int d, int bits, int shift) const {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) {
      const uint64_t code = codes[d + i] >> shift & ((1u << bits) - 1);
      word |= code << (i * bits);
    }
    return word;
  }

  // A lane packs 8 dims at a time: pieces of 8 never straddle what SwizzledChunk permutes.
  __device__ void StoreCodes(uint8_t* part, KvCodes kind, int token) const {
    for (int d = lane * 8; d < dim; d += kWarpSize * 8) {
      uint8_t* const to = part + PlaceOfCode(kind, token, d, dim).byte;
      if (kind == KvCodes::k8Bit) {
        *reinterpret_cast<uint64_t*>(to) = Gather(d, 8, 0);
      } else if (kind == KvCodes::k4Bit) {
        *reinterpret_cast<uint32_t*>(to) = static_cast<uint32_t>(Gather(d, 4, 0));
      } else {
        *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(Gather(d, 2, 0));
      }
    }
    if (kind != KvCodes::k3Bit) return;
    if (dim != kTensorCoreHeadDim) {
      for (int d = lane * 8; d < dim; d += kWarpSize * 8) {
        part[PlaceOfThirdBit(token, d, dim).byte] = static_cast<uint8_t>(Gather(d, 1, 2));
      }
    } else if (lane < kTensorCoreHeadDim / 16) {
      // Bits of dims d and d + 64 alternate.
      uint32_t word = 0;
      for (int i = 0; i < 8; ++i) {
        word |= (codes[lane * 8 + i] >> 2 & 1u) << (2 * i);
        word |= (codes[64 + lane * 8 + i] >> 2 & 1u) << (2 * i + 1);
      }
      uint8_t* const to = part + PlaceOfThirdBit(token, lane * 8, dim).byte;
      *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(word);
    }
  }

  // Stores what Round left as token `token` of a page's part.
  __device__ void StorePart(uint8_t* part, const KvPartLayout& layout, int token,
                            const KvGrid& grid) const {
    if (layout.codes == KvCodes::kBf16) {
      for (int d = lane; d < dim; d += kWarpSize) {
        *reinterpret_cast<__nv_bfloat16*>(part + PlaceOfCode(layout.codes, token, d, dim).byte) =
            __float2bfloat16_rn(x[d]);
      }
      return;
    }
    StoreCodes(part, layout.codes, token);
    if (layout.params == KvParams::kPerToken && lane == 0) {
      *reinterpret_cast<uint32_t*>(part + layout.code_bytes(dim) + token * 4) =
          PackGrid(__float_as_uint(grid.scale), static_cast<uint32_t>(grid.zero));
    }
  }
};

__device__ void PrepareQuery(const Params& p, const Head& head, int index, const Angles& angles,
                             __nv_bfloat16* to) {
  head.AddBias(p.q_bias == nullptr ? nullptr : p.q_bias + index * head.dim);
  head.Normalize(p.q_norm, p.norm_eps);
  head.Rotate(angles);
  if (p.key.transform == CacheSpec::Transform::kHadamard) head.Hadamard(p.hadamard_factor);
  if (p.key.transform == CacheSpec::Transform::kMatrix) head.Multiply(p.key.query_matrix);
  head.Store(to);
}

__device__ void PrepareKey(const Params& p, const Head& head, int index, int token,
                           const Angles& angles, uint8_t* part) {
  const KvPartLayout& layout = p.cache.layout.key;
  using Position = CacheSpec::Position;
  KvGrid grid;
  if (p.key.position == Position::kBeforeBias) {
    grid = head.Round(p.key, index, p.hadamard_factor);
    if (layout.params == KvParams::kPerChannel) {
      return head.StorePart(part, layout, token, grid);
    }
  }
  head.AddBias(p.k_bias == nullptr ? nullptr : p.k_bias + index * head.dim);
  head.Normalize(p.k_norm, p.norm_eps);
  if (p.key.position == Position::kBeforeRope) {
    grid = head.Round(p.key, index, p.hadamard_factor);
    if (layout.params == KvParams::kPerChannel) {
      return head.StorePart(part, layout, token, grid);
    }
  }
  head.Rotate(angles);
  if (p.key.position == Position::kAfterRope) grid = head.Round(p.key, index, p.hadamard_factor);
  head.StorePart(part, layout, token, grid);
}

// Grid: [rows, heads / kWarpsPerBlock]; heads are those of q, then k, then v.
__global__ void __launch_bounds__(kWarpsPerBlock* kWarpSize) WriteKvKernel(const Params p) {
  __shared__ float values[kWarpsPerBlock][kMaxHeadDim];
  __shared__ uint8_t codes[kWarpsPerBlock][kMaxHeadDim];
  LetNextKernelStart();
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int row = static_cast<int>(blockIdx.x);
  const int slot = static_cast<int>(blockIdx.y) * kWarpsPerBlock + warp;
  const int num_kv_heads = p.cache.num_kv_heads;
  const int position = p.rows.positions[row];
  const bool works = slot < p.num_heads + 2 * num_kv_heads && position >= 0;
  const int dim = p.cache.layout.head_dim;
  const bool is_query = slot < p.num_heads;
  const bool is_key = slot < p.num_heads + num_kv_heads;
  const int kv_head = slot - p.num_heads - (is_key ? 0 : num_kv_heads);
  uint8_t* page = nullptr;
  Angles angles;
  if (works) angles.Load(p.rope, position, dim / 2, lane);
  if (works && !is_query) {
    const int sequence = p.rows.sequences == nullptr ? row : p.rows.sequences[row];
    const int32_t* const table =
        p.rows.block_tables + int64_t{sequence} * p.rows.block_table_stride;
    page = p.cache.base + p.cache.PageOffset(p.layer, table[position / kKvPageTokens], kv_head);
  }
  WaitForKernelsBefore();
  if (!works) return;

  const Head head = {values[warp], codes[warp], dim, lane};
  head.Load(p.qkv + row * p.qkv_stride + int64_t{slot} * dim);
  if (is_query) {
    PrepareQuery(p, head, slot, angles, p.query + row * p.query_stride + int64_t{slot} * dim);
    return;
  }
  const int token = position % kKvPageTokens;
  if (is_key) {
    PrepareKey(p, head, kv_head, token, angles, page);
    return;
  }
  head.AddBias(p.v_bias == nullptr ? nullptr : p.v_bias + kv_head * dim);
  const KvGrid grid = head.Round(p.value, kv_head, p.hadamard_factor);
  head.StorePart(page + p.cache.layout.value_offset(), p.cache.layout.value, token, grid);
}

absl::StatusOr<Rounding> RoundingOf(const CacheRounding& from, int head_dim, bool is_key) {
  const CacheSpec& spec = from.spec;
  const std::string which = is_key ? "key" : "value";
  if (spec.transform == CacheSpec::Transform::kHadamard && (head_dim & (head_dim - 1)) != 0) {
    return absl::UnimplementedError(
        which +
        " cache: on CUDA a Hadamard transform needs a head_dim that is a power "
        "of two; use the CPU backend");
  }
  Rounding to;
  to.symmetric = spec.symmetric;
  to.ties_away = spec.ties == Ties::kAwayFromZero;
  to.transform = spec.transform;
  to.position = spec.position;
  to.group_size = spec.group_size == 0 ? head_dim : spec.group_size;
  to.clip_max = from.clip_max;
  to.clip_min = from.clip_min;
  to.scale = from.scale;
  to.zero = from.zero;
  if (spec.transform == CacheSpec::Transform::kMatrix &&
      (from.matrix == nullptr || (is_key && from.query_matrix == nullptr))) {
    return absl::FailedPreconditionError(which + " cache: a transform without its matrix");
  }
  to.matrix = from.matrix;
  to.query_matrix = from.query_matrix;
  if (spec.code_type == CodeType::kMxfp4) to.grid = Rounding::Grid::kMxfp4;
  if (spec.code_type == CodeType::kUniform) {
    const bool is_static = spec.granularity == CacheSpec::Granularity::kPerChannelStatic;
    to.grid = is_static ? Rounding::Grid::kStatic : Rounding::Grid::kOwn;
    to.max_code = static_cast<float>((1 << spec.bit_width) - 1);
    to.symmetric_zero = static_cast<float>(1 << (spec.bit_width - 1));
    if (is_static && (from.scale == nullptr || from.zero == nullptr)) {
      return absl::FailedPreconditionError(which + " cache: a static grid without its tables");
    }
  }
  return to;
}

}  // namespace

absl::Status WriteKv(const KvWriteArgs& args, cudaStream_t stream) {
  if (args.rows.num_rows == 0) return absl::OkStatus();
  const int head_dim = args.cache.layout.head_dim;
  const absl::StatusOr<KvPageLayout> layout =
      MakeKvPageLayout(args.weights.key.spec, args.weights.value.spec, head_dim);
  if (!layout.ok()) return layout.status();
  if (*layout != args.cache.layout) {
    return absl::FailedPreconditionError(
        "WriteKv: the cache's pages are laid out for another description");
  }
  Params params;
  const absl::StatusOr<Rounding> key = RoundingOf(args.weights.key, head_dim, true);
  if (!key.ok()) return key.status();
  const absl::StatusOr<Rounding> value = RoundingOf(args.weights.value, head_dim, false);
  if (!value.ok()) return value.status();
  params.key = *key;
  params.value = *value;
  params.rows = args.rows;
  params.cache = args.cache;
  params.layer = args.layer;
  params.num_heads = args.num_heads;
  params.q_bias = args.weights.q_bias;
  params.k_bias = args.weights.k_bias;
  params.v_bias = args.weights.v_bias;
  params.q_norm = args.weights.q_norm;
  params.k_norm = args.weights.k_norm;
  params.norm_eps = args.weights.norm_eps;
  params.hadamard_factor = 1.0f / std::sqrt(static_cast<float>(head_dim));
  params.rope = args.rope;
  params.qkv = args.qkv;
  params.qkv_stride = args.qkv_stride;
  params.query = args.query;
  params.query_stride = args.query_stride;
  const int slots = args.num_heads + 2 * args.cache.num_kv_heads;
  const dim3 grid(static_cast<unsigned>(args.rows.num_rows),
                  static_cast<unsigned>((slots + kWarpsPerBlock - 1) / kWarpsPerBlock));
  return CudaStatus(
      LaunchOverlapped(WriteKvKernel, grid, kWarpsPerBlock * kWarpSize, 0, 1, stream, params),
      "WriteKv");
}

}  // namespace assay::engine::cuda
