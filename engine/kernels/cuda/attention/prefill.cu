// Prefill attention with tensor cores, head_dim 128: rows of prompts against the paged cache.
//
// Reference: engine/kernels/cpu/attend.inc. Agreement to rounding: bf16 caches enter as they are,
// integer ones as FP16 of what they decode to; p has 8 or 11 bits.
//
// A block owns 128 rows of one KV head: tokens times the heads of its GQA group, so that they share
// the keys. It walks the pages from the first to the last that any of its rows sees; a page comes
// by a bulk copy while the one before is worked on, is decoded once for all rows into shared
// memory, and every warp multiplies it with its own 16 rows (Dao, FlashAttention-2). Rows that end
// earlier add exact zeros, so where the rows of a block begin and end changes nothing.
//
// Bound: tensor cores, 4 * 128 operations per score; mma.sync reaches about 0.6 of wgmma's rate.
#include <cuda_bf16.h>

#include <algorithm>

#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/attention/decode.cuh"
#include "engine/kernels/cuda/attention/page_decoder.cuh"
#include "engine/kernels/cuda/attention/ptx.cuh"

namespace assay::engine::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kWarpSize = 32;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kRowsPerWarp = 16;
constexpr int kRowsPerBlock = kWarps * kRowsPerWarp;
constexpr int kHeadDim = kTensorCoreHeadDim;
constexpr int kMaxGroup = kRowsPerBlock;
constexpr int kDimSteps = kHeadDim / 16;
constexpr int kTokenTiles = kKvPageTokens / 8;
constexpr int kDimTiles = kHeadDim / 8;
constexpr int kMaxPageBytes = 2 * kOperandBytes;  // of bf16
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr float kSoftmaxScale = 0.08838834764831845f * 1.4426950408889634f;  // log2 e / sqrt(128)

int TokensPerTile(int num_heads, int num_kv_heads) {
  return std::max(kRowsPerBlock / (num_heads / num_kv_heads), 1);
}

// bf16 pages are operands as they come; others are decoded behind them.
struct SharedMemory {
  uint8_t pages[2][kMaxPageBytes];
  uint8_t keys[kOperandBytes];
  uint8_t values[kOperandBytes];
  uint64_t barriers[2];
};

// The rows of one warp: thread (r, c) has rows r and r + 8.
struct Rows {
  uint32_t query[kDimSteps][4];  // A fragments
  float output[kDimTiles][4];
  float max[2];
  float sum[2];
  int position[2];
};

// Fills the query from global memory; rows beyond the tile are zeros.
template <bool kBf16>
__device__ void LoadRows(const AttentionArgs& args, const PrefillChunk& tile, int kv_head, int warp,
                         int lane, Rows* rows) {
  const int group = args.num_heads / args.cache.num_kv_heads;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int packed = warp * kRowsPerWarp + 8 * half + lane / 4;
    const int token = packed / group;
    const bool valid = token < tile.num_rows;
    rows->position[half] = tile.first_position + min(token, tile.num_rows - 1);
    rows->max[half] = -INFINITY;
    rows->sum[half] = 0;
    const __nv_bfloat16* const from = args.query + (tile.first_row + token) * args.query_stride +
                                      (int64_t{kv_head} * group + packed % group) * kHeadDim +
                                      2 * (lane % 4);
#pragma unroll
    for (int step = 0; step < kDimSteps; ++step) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        uint32_t pair = 0;
        if (valid) pair = *reinterpret_cast<const uint32_t*>(from + 16 * step + 8 * side);
        rows->query[step][2 * side + half] =
            kBf16 ? pair : PackHalves(LowBf16(pair), HighBf16(pair));
      }
    }
  }
#pragma unroll
  for (int tile_of = 0; tile_of < kDimTiles; ++tile_of) {
#pragma unroll
    for (int i = 0; i < 4; ++i) rows->output[tile_of][i] = 0;
  }
}

// Adds a page whose first token is at `first_position`; `keys` and `values` are operands: 64 rows
// of 256 bytes, swizzled.
template <bool kBf16>
__device__ void AddPage(const uint8_t* keys, const uint8_t* values, int first_position, int lane,
                        Rows* rows) {
  const int c = lane % 4;
  float scores[kTokenTiles][4] = {};
#pragma unroll
  for (int step = 0; step < kDimSteps; ++step) {
#pragma unroll
    for (int pair = 0; pair < kTokenTiles; pair += 2) {
      // Matrices: tokens 0..7 and 8..15 of the pair of tiles, each with both halves of 16 dims.
      const int token = pair * 8 + lane % 8 + lane / 16 * 8;
      const int chunk = SwizzledChunk(token, 2 * step + lane / 8 % 2, 256);
      uint32_t b[4];
      LoadMatrices(b, SharedAddress(keys + token * 256 + chunk * 16));
      const uint32_t(&a)[4] = rows->query[step];
      Mma<kBf16>(scores[pair], a[0], a[1], a[2], a[3], b[0], b[1]);
      Mma<kBf16>(scores[pair + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }

  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float max = rows->max[half];
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[tile][2 * half + i];
        const int position = first_position + 8 * tile + 2 * c + i;
        score = position <= rows->position[half] ? score * kSoftmaxScale : -INFINITY;
        max = fmaxf(max, score);
      }
    }
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 1));
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 2));
    factor[half] = Exp2(rows->max[half] - max);
    rows->max[half] = max;
    float sum = rows->sum[half] * factor[half];
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[tile][2 * half + i];
        score = Exp2(score - max);
        sum += score;
      }
    }
    rows->sum[half] = sum;
  }
#pragma unroll
  for (int tile = 0; tile < kDimTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) rows->output[tile][i] *= factor[i / 2];
  }

#pragma unroll
  for (int step = 0; step < kKvPageTokens / 16; ++step) {
    uint32_t a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* const p = scores[2 * step + i / 2] + i % 2 * 2;
      a[i] = kBf16 ? PackBf16(p[0], p[1]) : PackHalves(p[0], p[1]);
    }
#pragma unroll
    for (int pair = 0; pair < kDimTiles; pair += 2) {
      // Matrices: tokens 0..7 and 8..15 of the step, each of two tiles of 8 dims.
      const int token = step * 16 + lane % 16;
      const int chunk = SwizzledChunk(token, pair + lane / 16, 256);
      uint32_t b[4];
      LoadTransposed(b, SharedAddress(values + token * 256 + chunk * 16));
      Mma<kBf16>(rows->output[pair], a[0], a[1], a[2], a[3], b[0], b[1]);
      Mma<kBf16>(rows->output[pair + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }
}

__device__ void StoreRows(const AttentionArgs& args, const PrefillChunk& tile, int kv_head,
                          int warp, int lane, Rows& rows) {
  const int group = args.num_heads / args.cache.num_kv_heads;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    rows.sum[half] += __shfl_xor_sync(kAllLanes, rows.sum[half], 1);
    rows.sum[half] += __shfl_xor_sync(kAllLanes, rows.sum[half], 2);
    const int packed = warp * kRowsPerWarp + 8 * half + lane / 4;
    const int token = packed / group;
    if (token >= tile.num_rows) continue;
    const float inverse = 1.0f / rows.sum[half];
    __nv_bfloat16* const to = args.output + (tile.first_row + token) * args.output_stride +
                              (int64_t{kv_head} * group + packed % group) * kHeadDim +
                              2 * (lane % 4);
#pragma unroll
    for (int dims = 0; dims < kDimTiles; ++dims) {
      *reinterpret_cast<uint32_t*>(to + 8 * dims) = PackBf16(
          rows.output[dims][2 * half] * inverse, rows.output[dims][2 * half + 1] * inverse);
    }
  }
}

// Grid: [tiles, kv_heads].
template <bool kBf16>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillKernel(const __grid_constant__ AttentionArgs args, const PrefillChunk* tiles) {
  extern __shared__ __align__(128) uint8_t dynamic_memory[];
  auto& shared = *reinterpret_cast<SharedMemory*>(dynamic_memory);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const PrefillChunk tile = tiles[blockIdx.x];
  const int kv_head = static_cast<int>(blockIdx.y);
  const int32_t* const table =
      args.rows.block_tables + int64_t{tile.sequence} * args.rows.block_table_stride;
  const int context_len = tile.first_position + tile.num_rows;
  const int num_pages = (context_len + kKvPageTokens - 1) / kKvPageTokens;
  const auto page_bytes = static_cast<uint32_t>(args.cache.layout.page_bytes());
  const uint64_t policy = ReadOncePolicy();

  const auto issue = [&](int page) {
    if (threadIdx.x != 0 || page >= num_pages) return;
    const uint32_t barrier = SharedAddress(&shared.barriers[page % 2]);
    ExpectBytes(barrier, page_bytes);
    BulkCopy(SharedAddress(shared.pages[page % 2]),
             args.cache.base + args.cache.PageOffset(args.layer, table[page], kv_head), page_bytes,
             barrier, policy);
  };
  if (threadIdx.x == 0) {
    InitBarrier(SharedAddress(&shared.barriers[0]));
    InitBarrier(SharedAddress(&shared.barriers[1]));
    PublishBarriers();
  }
  __syncthreads();
  issue(0);

  Rows rows;
  LoadRows<kBf16>(args, tile, kv_head, warp, lane, &rows);
  for (int page = 0; page < num_pages; ++page) {
    issue(page + 1);
    uint8_t* const raw = shared.pages[page % 2];
    WaitForPhase(SharedAddress(&shared.barriers[page % 2]), static_cast<uint32_t>(page / 2 % 2));
    const uint8_t* keys = raw;
    const uint8_t* values = raw + kOperandBytes;
    const int num_valid = min(context_len - page * kKvPageTokens, kKvPageTokens);
    if constexpr (kBf16) {
      // Rows that nobody wrote may hold NaNs, which a weight of zero does not silence.
      if (num_valid < kKvPageTokens) {
        auto* const unwritten = reinterpret_cast<uint32_t*>(raw + kOperandBytes + num_valid * 256);
        for (int i = static_cast<int>(threadIdx.x); i < (kKvPageTokens - num_valid) * 64;
             i += kThreads) {
          unwritten[i] = 0;
        }
        __syncthreads();
      }
    } else {
      DecodePage<kThreads>(args, raw, kv_head, page * kKvPageTokens, num_valid, shared.keys,
                           shared.values);
      keys = shared.keys;
      values = shared.values;
      __syncthreads();
    }
    AddPage<kBf16>(keys, values, page * kKvPageTokens, lane, &rows);
    __syncthreads();  // the page's memory is free again
  }
  StoreRows(args, tile, kv_head, warp, lane, rows);
}

template <bool kBf16>
absl::Status Launch(const AttentionArgs& args, const PrefillChunk* tiles, int num_tiles,
                    cudaStream_t stream) {
  const auto kernel = PrefillKernel<kBf16>;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sizeof(SharedMemory))));
  const dim3 grid(static_cast<unsigned>(num_tiles), static_cast<unsigned>(args.cache.num_kv_heads));
  kernel<<<grid, kThreads, sizeof(SharedMemory), stream>>>(args, tiles);
  return CudaStatus(cudaGetLastError(), "PrefillAttention");
}

}  // namespace

std::vector<PrefillChunk> MakePrefillTiles(std::span<const PrefillChunk> chunks, int num_heads,
                                           int num_kv_heads) {
  const int tokens = TokensPerTile(num_heads, num_kv_heads);
  std::vector<PrefillChunk> tiles;
  for (const PrefillChunk& chunk : chunks) {
    for (int row = 0; row < chunk.num_rows; row += tokens) {
      tiles.push_back({.first_row = chunk.first_row + row,
                       .num_rows = std::min(tokens, chunk.num_rows - row),
                       .first_position = chunk.first_position + row,
                       .sequence = chunk.sequence});
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(), [](const PrefillChunk& a, const PrefillChunk& b) {
    return a.first_position + a.num_rows > b.first_position + b.num_rows;
  });
  return tiles;
}

absl::Status PrefillAttention(const AttentionArgs& args, const PrefillChunk* tiles, int num_tiles,
                              cudaStream_t stream) {
  if (num_tiles == 0) return absl::OkStatus();
  if (args.cache.num_kv_heads == 0 || args.num_heads % args.cache.num_kv_heads != 0) {
    return absl::InvalidArgumentError("PrefillAttention: KV heads do not divide the heads");
  }
  const KvPageLayout& layout = args.cache.layout;
  const bool key_is_bf16 = layout.key.codes == KvCodes::kBf16;
  const bool value_is_bf16 = layout.value.codes == KvCodes::kBf16;
  if (layout.head_dim != kHeadDim || key_is_bf16 != value_is_bf16 ||
      args.num_heads / args.cache.num_kv_heads > kMaxGroup) {
    return PlainAttention(args, stream);
  }
  return key_is_bf16 ? Launch<true>(args, tiles, num_tiles, stream)
                     : Launch<false>(args, tiles, num_tiles, stream);
}

}  // namespace assay::engine::cuda
