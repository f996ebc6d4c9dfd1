// Decode attention over packed pages with tensor cores; head_dim 128, GQA groups up to 8.
//
// Reference: engine/kernels/cpu/attend.inc. Agreement to rounding: bf16 caches round p to 8 bits,
// as flash attention does; integer caches enter exactly, with p s in 11 bits.
//
// A block of 4 warps takes work items, (row, chunk, KV head), in turn. Each warp has a pipeline of
// its own: its share of the tiles of an item, then of the next item, come by bulk copies into its
// stages of shared memory. Warps do not wait for each other: one that is done with an item leaves
// its sums in a mailbox and goes on; whoever brings the last merges the four, in the order of
// warps. An item that is a part of a chunk (decode.cuh) leaves the warps' sums in memory instead.
//
// Bound: memory. Per token and KV head 512 / 264 / 136 / 104 bytes (16, 8, 4, 3 bits). At 3.0 TB/s
// an H100 multiprocessor gets 13 bytes a cycle, so a page of 64 tokens of KV4 has 650 cycles, 2,600
// issue slots; the kernel spends 890 instructions on it (3 bits: 1,170, static keys of 4 bits:
// 1,570).
#include <cuda_bf16.h>

#include <algorithm>

#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/attention/decode.cuh"
#include "engine/kernels/cuda/attention/decode_pipeline.cuh"
#include "engine/kernels/cuda/attention/decode_tile.cuh"
#include "engine/kernels/cuda/attention/own_token.cuh"
#include "engine/kernels/cuda/attention/rotated_query.cuh"
#include "engine/kernels/cuda/launch.cuh"

namespace assay::engine::cuda {
namespace {

static_assert(kHeadDim == 4 * kWarpSize, "a lane merges 4 dims");
static_assert(kWarps * kMaxGroup == kWarpSize, "a lane weights a head of a warp");

constexpr int kMergeStride = kHeadDim + 4;  // floats; spreads heads over the banks

// The sums of an item's warps, on their way to be merged.
struct Mailbox {
  float outputs[kWarps][kMaxGroup][kMergeStride];
  float maxima[kWarps][kMaxGroup];
  float sums[kWarps][kMaxGroup];
};

template <KvCodes kCodes, bool kRotates>
struct SharedMemory {
  using T = DecodeTile<kCodes, kRotates>;
  uint8_t stages[kWarps][T::kStages][T::kBytes];
  Mailbox mailboxes[T::kMailboxes];
  uint64_t barriers[kWarps][T::kStages];
  uint64_t filled[T::kMailboxes];   // barriers: a phase ends when all threads have left their sums
  uint64_t emptied[T::kMailboxes];  //   and when they have been merged
  int num_arrived[T::kMailboxes];   // warps
};

// What follows SharedMemory for keys before RoPE.
struct RotationMemory {
  RotationTable table;
  KeyGridTable key_grids[1];  // as many as there are KV heads
};

// The query's local elements of head r of the item's group, zeros beyond the group.
template <KvCodes kCodes>
__device__ void LoadQuery(const DecodeParams& p, const WarpItem& item, int group, int lane,
                          uint32_t (&raw)[kPairs]) {
  using C = Codes<kCodes>;
  // The whole warp asks for the item's words.
  const int row = item.row();
  const int num_tokens = item.num_tokens();
  const bool valid = lane / 4 < group && num_tokens > 0;
  const __nv_bfloat16* const head =
      p.query + row * p.query_stride + int64_t{item.kv_head * group + lane / 4} * kHeadDim;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    uint4 words = make_uint4(0, 0, 0, 0);
    if (valid) words = *reinterpret_cast<const uint4*>(head + C::Dim(8 * i, lane % 4));
    raw[4 * i] = words.x;
    raw[4 * i + 1] = words.y;
    raw[4 * i + 2] = words.z;
    raw[4 * i + 3] = words.w;
  }
}

// A warp's sums as true values: store(head, dim, value) and store_sums(head, maximum, sum), heads
// of the group.
template <KvCodes kCodes, typename Store, typename StoreSums>
__device__ void StoreWarp(const SoftmaxState& state, int lane, const Store& store,
                          const StoreSums& store_sums) {
  const int r = lane / 4;
  const int c = lane % 4;
#pragma unroll
  for (int m = 0; m < kValueTiles; ++m) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int half = i / 2;
      const float factor =
          Codes<kCodes>::kIsBf16 ? 1.0f : 1 / (kUnit * ValueFactor<kCodes>(m, half));
      store(2 * c + i % 2, ValueDim<kCodes>(m, half, r),
            fmaf(state.output[m][i], factor, -state.zero_sum[i % 2]));
    }
  }
  if (r == 0) {
#pragma unroll
    for (int i = 0; i < 2; ++i) store_sums(2 * c + i, state.max[i], state.sum[i]);
  }
}

// A warp's sums of a part, to where the merge finds them.
template <KvCodes kCodes>
__device__ void StorePart(const DecodeParams& p, const WarpItem& item, int group, int warp,
                          int lane, const SoftmaxState& state) {
  const int64_t first = int64_t{item.slot() + warp} * p.num_heads + int64_t{item.kv_head} * group;
  StoreWarp<kCodes>(
      state, lane,
      [&](int head, int dim, float value) {
        if (head < group) p.buffers.outputs[(first + head) * kHeadDim + dim] = value;
      },
      [&](int head, float max, float sum) {
        if (head < group) p.buffers.sums[first + head] = make_float2(max, sum);
      });
}

// Adds the warps' sums of an item, in the order of warps, and stores them: the output of a row of
// one chunk, or a chunk's part of it. By one warp: lane (w, h) weights head h of warp w.
__device__ void MergeWarps(const DecodeParams& p, const WarpItem& item, int group, int lane,
                           const Mailbox& mailbox) {
  const float lane_max = mailbox.maxima[lane / kMaxGroup][lane % kMaxGroup];
  float max = fmaxf(lane_max, __shfl_xor_sync(kAllLanes, lane_max, kMaxGroup));
  max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 2 * kMaxGroup));
  const float weight = Exp2(lane_max - max);
  float sum = __fmul_rn(mailbox.sums[lane / kMaxGroup][lane % kMaxGroup], weight);
  sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, kMaxGroup));
  sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, 2 * kMaxGroup));

  const int row = item.row();
  const int first_head = item.kv_head * group;
  const bool has_slot = item.slot() >= 0;
  const int64_t slot = int64_t{item.slot()} * p.num_heads;
  if (has_slot && lane < group) {
    p.buffers.sums[slot + first_head + lane] = make_float2(max, sum);
  }
  for (int h = 0; h < group; ++h) {
    float4 output = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = __shfl_sync(kAllLanes, weight, w * kMaxGroup + h);
      const float4 part = *reinterpret_cast<const float4*>(&mailbox.outputs[w][h][4 * lane]);
      output.x = fmaf(part.x, factor, output.x);
      output.y = fmaf(part.y, factor, output.y);
      output.z = fmaf(part.z, factor, output.z);
      output.w = fmaf(part.w, factor, output.w);
    }
    const int head = first_head + h;
    if (has_slot) {
      reinterpret_cast<float4*>(p.buffers.outputs + (slot + head) * kHeadDim)[lane] = output;
      continue;
    }
    const float inverse = 1.0f / __shfl_sync(kAllLanes, sum, h);
    uint2 packed;
    packed.x = PackBf16(output.x * inverse, output.y * inverse);
    packed.y = PackBf16(output.z * inverse, output.w * inverse);
    *reinterpret_cast<uint2*>(p.output + row * p.output_stride + int64_t{head} * kHeadDim +
                              4 * lane) = packed;
  }
}

template <KvCodes kCodes, bool kRotates>
__global__ void __launch_bounds__(kThreads, (DecodeTile<kCodes, kRotates>::kBlocks))
    DecodeKernel(const __grid_constant__ DecodeParams p) {
  using T = DecodeTile<kCodes, kRotates>;
  LetNextKernelStart();
  extern __shared__ __align__(128) uint8_t dynamic_memory[];
  auto& shared = *reinterpret_cast<SharedMemory<kCodes, kRotates>*>(dynamic_memory);
  // Only where kRotates.
  auto& rotation = *reinterpret_cast<RotationMemory*>(
      dynamic_memory + (sizeof(SharedMemory<kCodes, kRotates>) + 127) / 128 * 128);

  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int group = p.num_heads / p.cache.num_kv_heads;
  TilePipeline<T> pipeline = {SharedAddress(shared.stages[warp]),
                              SharedAddress(shared.barriers[warp]), ReadOncePolicy()};
  if (lane == 0) {
    for (int i = 0; i < T::kStages; ++i) {
      InitBarrier(pipeline.barriers + static_cast<uint32_t>(i * 8));
    }
    if (warp == 0) {
      for (int i = 0; i < T::kMailboxes; ++i) {
        InitBarrier(SharedAddress(&shared.filled[i]), kThreads);
        InitBarrier(SharedAddress(&shared.emptied[i]), kWarpSize);
        shared.num_arrived[i] = 0;
      }
    }
    PublishBarriers();
  }
  if (!p.fetches_early) WaitForKernelsBefore();
  __syncthreads();

  const int64_t num_items = int64_t{*p.buffers.num_items} * p.cache.num_kv_heads;
  WarpItem item = LoadItem(p, ItemOfTurn(0), num_items, lane);
  WarpItem next = LoadItem(p, ItemOfTurn(1), num_items, lane);
  LoadBlocks(p, lane, &item);
  int num_tiles = NumTiles<T>(item.num_tokens(), warp);
  int num_issued = 0;  // tiles of `item` on their way or here
  const auto issue_up_to = [&](int count) {
    for (; num_issued < min(T::kStages, count); ++num_issued) {
      pipeline.Issue(p, item, num_issued, warp, lane);
    }
  };
  // In pages that this kernel writes, own tokens are put into tiles that are here.
  const bool all_early = p.fetches_early && p.projected;
  issue_up_to(p.fetches_early && !all_early && HasOwnToken<T>(item, num_tiles, warp) ? num_tiles - 1
                                                                                     : num_tiles);
  if constexpr (kRotates) {  // while the first tiles are on their way
    FillRotationTable<kCodes, kThreads>(p.rope, &rotation.table);
    for (int head = warp; head < p.cache.num_kv_heads; head += kWarps) {
      FillKeyGrids<kCodes>(p.key_scale, p.key_zero, p.key_bias, head, lane,
                           &rotation.key_grids[head]);
    }
    __syncthreads();
  }
  if (p.fetches_early) {
    WaitForKernelsBefore();
    issue_up_to(num_tiles);
  }
  uint32_t raw_query[kPairs];
  LoadQuery<kCodes>(p, item, group, lane, raw_query);
  int box = 0;
  uint32_t box_parity = 1;  // of the phase that must have ended: none for the first round

  for (int turn = 0; ItemOfTurn(turn) < num_items; ++turn) {
    // What the next turns need is asked for now.
    const WarpItem after_next = LoadItem(p, ItemOfTurn(turn + 2), num_items, lane);
    LoadBlocks(p, lane, &next);
    uint32_t next_query[kPairs];
    LoadQuery<kCodes>(p, next, group, lane, next_query);
    const int next_tiles = NumTiles<T>(next.num_tokens(), warp);
    int next_issued = 0;

    [[maybe_unused]] OwnToken own_token;
    bool puts_own_token = false;
    if constexpr (T::kHasParts) {
      if (p.projected && num_tiles > 0) {
        RotateQueryRow(p.rope, item.position(), lane, raw_query);
        puts_own_token = HasOwnToken<T>(item, num_tiles, warp);
        if (puts_own_token) own_token.Load(p, item, lane);
      }
    }
    QueryFragments query;
    [[maybe_unused]] const KeyGridTable& key_grids = rotation.key_grids[item.kv_head];
    if constexpr (kRotates) {
      query.score_scale = ScaleForRotation<kCodes>(key_grids, raw_query);
    } else {
      MakeQuery<kCodes>(raw_query, lane, &query);
    }
    SoftmaxState state;
    state.Reset();
    [[maybe_unused]] SoftmaxState parts;  // that came before
    [[maybe_unused]] int num_parts = 0;
    [[maybe_unused]] int part_end = T::TilesOfPart(item.kind() & kPartPagesMask);
    const int num_tokens = item.num_tokens();
    [[maybe_unused]] const int first_position = item.first_page() * kKvPageTokens;
    for (int i = 0; i < num_tiles; ++i) {
      if constexpr (T::kHasParts) {
        if (i == part_end) {
          state.ReduceSums();
          parts.AddPart(state, num_parts++);
          state.Reset();
          part_end += T::TilesOfPart(item.kind() & kPartPagesMask);
        }
      }
      const int first_token = (warp + i * kWarps) * T::kTokens;
      [[maybe_unused]] RotatedQuery rotated;
      if constexpr (kRotates) {
        RotateQuery<kCodes>(raw_query, key_grids, p.rope, first_position + first_token, lane,
                            &rotated);
      }
      uint8_t* const tile = shared.stages[warp][pipeline.drain];
      pipeline.Wait();
      if constexpr (T::kHasParts) {
        if (puts_own_token && i == num_tiles - 1) own_token.Put<T>(p, item, lane, tile);
      }
      float scores[T::kTokens / 16][4];
#pragma unroll
      for (int t = 0; t < T::kTokens / 16; ++t) {
        if constexpr (kRotates) {
          ScoreUnrotatedKeys<kCodes>(tile, 16 * t, lane, rotation.table, rotated,
                                     key_grids.constant_ratio, scores[t]);
        } else {
          ScoreKeys<kCodes>(tile, 16 * t, lane, query.pairs, scores[t]);
        }
      }
      AddTile<kCodes, T::kTokens, T::kKeyGrids>(
          scores, num_tokens - first_token, lane, query,
          reinterpret_cast<const uint32_t*>(tile + T::kKeyGridsAt),
          reinterpret_cast<const uint32_t*>(tile + T::kValueGridsAt), tile + T::kValuesAt, &state);
      pipeline.Release();
      const bool from_item = num_issued < num_tiles;
      if (from_item || next_issued < next_tiles) {
        const WarpItem source = from_item ? item : next;
        pipeline.Issue(p, source, from_item ? num_issued++ : next_issued++, warp, lane);
      }
    }
    while (next_issued < min(T::kStages, next_tiles)) {
      pipeline.Issue(p, next, next_issued++, warp, lane);
    }

    state.ReduceSums();
    const bool is_part = T::kHasParts && (item.kind() & kIsPart) != 0;
    if (is_part) {
      StorePart<kCodes>(p, item, group, warp, lane, state);
    } else {
      if (T::kHasParts && num_parts > 0) {
        parts.AddPart(state, num_parts);
        state = parts;
      }
      Mailbox& mailbox = shared.mailboxes[box];
      const uint32_t emptied = SharedAddress(&shared.emptied[box]);
      WaitForPhase(emptied, box_parity);
      StoreWarp<kCodes>(
          state, lane,
          [&](int head, int dim, float value) { mailbox.outputs[warp][head][dim] = value; },
          [&](int head, float max, float sum) {
            mailbox.maxima[warp][head] = max;
            mailbox.sums[warp][head] = sum;
          });
      const uint32_t filled = SharedAddress(&shared.filled[box]);
      Arrive(filled);
      __syncwarp();
      int num_arrived = 0;
      if (lane == 0) num_arrived = atomicAdd(&shared.num_arrived[box], 1) + 1;
      if (__shfl_sync(kAllLanes, num_arrived, 0) == kWarps) {
        WaitForPhase(filled, box_parity ^ 1);  // it has ended: orders the sums before their reading
        MergeWarps(p, item, group, lane, mailbox);
        if (lane == 0) shared.num_arrived[box] = 0;
        __syncwarp();
        Arrive(emptied);
      }
      box = box + 1 == T::kMailboxes ? 0 : box + 1;
      if (box == 0) box_parity ^= 1;
    }

    item = next;
    next = after_next;
    num_tiles = next_tiles;
    num_issued = next_issued;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) raw_query[i] = next_query[i];
  }
}

template <KvCodes kCodes, bool kRotates>
int64_t SharedBytes(int num_kv_heads) {
  const int64_t base = (sizeof(SharedMemory<kCodes, kRotates>) + 127) / 128 * 128;
  return kRotates ? base + static_cast<int64_t>(sizeof(RotationTable)) +
                        num_kv_heads * static_cast<int64_t>(sizeof(KeyGridTable))
                  : base;
}

// Of a Hopper multiprocessor's 228 KiB; a block takes one more.
constexpr int64_t SharedBytesPerBlock(int num_blocks) { return (228 / num_blocks - 1) * 1024; }

template <KvCodes kCodes, bool kRotates>
absl::Status Launch(const DecodeParams& params, cudaStream_t stream) {
  constexpr int kBlocks = DecodeTile<kCodes, kRotates>::kBlocks;
  static_assert(sizeof(SharedMemory<kCodes, kRotates>) <= SharedBytesPerBlock(kBlocks));
  const auto kernel = DecodeKernel<kCodes, kRotates>;
  const auto bytes = static_cast<int>(SharedBytes<kCodes, kRotates>(params.cache.num_kv_heads));
  int device = 0;
  int num_multiprocessors = 0;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaGetDevice(&device));
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaDeviceGetAttribute(&num_multiprocessors, cudaDevAttrMultiProcessorCount, device));
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  // A grid of the device's size, whatever the batch: how many items there are is known on the
  // device.
  const int num_blocks = num_multiprocessors * kBlocks;
  return CudaStatus(LaunchOverlapped(kernel, dim3(static_cast<unsigned>(num_blocks)), kThreads,
                                     static_cast<size_t>(bytes), 1, stream, params),
                    "DecodeAttention");
}

// Keys before RoPE with more KV heads than this leave no room for two blocks.
bool GridTablesFit(int num_kv_heads) {
  return SharedBytes<KvCodes::k4Bit, true>(num_kv_heads) <=
         SharedBytesPerBlock(DecodeTile<KvCodes::k4Bit, true>::kBlocks);
}

template <KvCodes kCodes, bool kRotates>
constexpr bool Takes(const KvPageLayout& layout) {
  return layout == DecodeTile<kCodes, kRotates>::kPage;
}

}  // namespace

bool HasFastDecode(const AttentionArgs& args) {
  const KvPageLayout& layout = args.cache.layout;
  const int group = args.num_heads / args.cache.num_kv_heads;
  if (group > kMaxGroup) return false;
  if (Takes<KvCodes::k4Bit, true>(layout) || Takes<KvCodes::k3Bit, true>(layout)) {
    return GridTablesFit(args.cache.num_kv_heads);
  }
  return Takes<KvCodes::kBf16, false>(layout) || Takes<KvCodes::k8Bit, false>(layout) ||
         Takes<KvCodes::k4Bit, false>(layout) || Takes<KvCodes::k3Bit, false>(layout);
}

absl::Status FastDecode(const AttentionArgs& args, const DecodeBuffers& buffers,
                        cudaStream_t stream) {
  const DecodeParams params = {args, buffers};
  const bool rotates = args.cache.layout.key.params == KvParams::kPerChannel;
  switch (args.cache.layout.key.codes) {
    case KvCodes::kBf16:
      return Launch<KvCodes::kBf16, false>(params, stream);
    case KvCodes::k8Bit:
      return Launch<KvCodes::k8Bit, false>(params, stream);
    case KvCodes::k4Bit:
      return rotates ? Launch<KvCodes::k4Bit, true>(params, stream)
                     : Launch<KvCodes::k4Bit, false>(params, stream);
    case KvCodes::k3Bit:
      return rotates ? Launch<KvCodes::k3Bit, true>(params, stream)
                     : Launch<KvCodes::k3Bit, false>(params, stream);
  }
  return absl::InternalError("DecodeAttention: unknown codes");
}

}  // namespace assay::engine::cuda
