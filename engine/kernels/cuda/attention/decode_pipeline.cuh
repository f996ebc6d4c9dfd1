// What a warp of the decode kernel works on, and how it comes: items, their tiles, and a pipeline
// of bulk copies into the warp's own stages of shared memory.
#pragma once

#include "engine/kernels/cuda/attention/codes.cuh"
#include "engine/kernels/cuda/attention/decode.cuh"
#include "engine/kernels/cuda/attention/decode_tile.cuh"
#include "engine/kernels/cuda/attention/ptx.cuh"

namespace assay::engine::cuda {

constexpr int kWarps = kDecodeWarps;
constexpr int kWarpSize = 32;
constexpr int kThreads = kWarps * kWarpSize;

struct DecodeParams : AttentionArgs {
  DecodeBuffers buffers;
};

// A tile is what one stage of a warp's pipeline holds: some tokens' keys and values.
template <KvCodes kCodes, bool kRotates>
struct DecodeTile {
  static constexpr KvPartLayout kKey = {kCodes, kCodes == KvCodes::kBf16 ? KvParams::kNone
                                                : kRotates               ? KvParams::kPerChannel
                                                                         : KvParams::kPerToken};
  static constexpr KvPartLayout kValue = {
      kCodes, kCodes == KvCodes::kBf16 ? KvParams::kNone : KvParams::kPerToken};
  static constexpr KvPageLayout kPage = {kHeadDim, kKey, kValue};

  static constexpr int kTokens = kCodes == KvCodes::kBf16 ? 16 : kCodes == KvCodes::k8Bit ? 32 : 64;
  static constexpr int kBlocks = 2;  // on a multiprocessor
  // As many stages and mailboxes as leave room for the blocks.
  static constexpr int kStages = kCodes == KvCodes::kBf16 ? 3 : 2;
  static constexpr int kMailboxes = kCodes == KvCodes::kBf16 || kRotates ? 1 : 2;
  static constexpr int kPerPage = kKvPageTokens / kTokens;
  static constexpr bool kHasParts = kCodes == KvCodes::kBf16;
  static constexpr bool kKeyGrids = kKey.params == KvParams::kPerToken;
  static constexpr bool kValueGrids = kValue.params == KvParams::kPerToken;

  static constexpr int kCodeBytes = kKey.code_bytes(kHeadDim) / kPerPage;  // of keys, and of values
  static constexpr int kGridBytes = kTokens * 4;
  static constexpr int kKeyGridsAt = kCodeBytes;
  static constexpr int kValuesAt = kKeyGridsAt + (kKeyGrids ? kGridBytes : 0);
  static constexpr int kValueGridsAt = kValuesAt + kCodeBytes;
  static constexpr int kBytes = kValueGridsAt + (kValueGrids ? kGridBytes : 0);
  static_assert(kBytes * kPerPage == kPage.page_bytes());

  // A warp's share of a part.
  static constexpr int TilesOfPart(int part_pages) { return part_pages * kPerPage / kWarps; }
};

// A work item as one warp sees it: lane i holds word i of the DecodeItem and the chunk's block i.
struct WarpItem {
  int32_t word = 0;
  int32_t lane_block = 0;
  int kv_head = 0;

  __device__ int row() const { return __shfl_sync(kAllLanes, word, 0); }
  __device__ int sequence() const { return __shfl_sync(kAllLanes, word, 1); }
  __device__ int first_page() const { return __shfl_sync(kAllLanes, word, 2); }
  __device__ int num_tokens() const { return __shfl_sync(kAllLanes, word, 3); }
  __device__ int slot() const { return __shfl_sync(kAllLanes, word, 4); }
  __device__ int kind() const { return __shfl_sync(kAllLanes, word, 5); }
  __device__ int position() const { return __shfl_sync(kAllLanes, word, 6); }
  __device__ int block(int page) const { return __shfl_sync(kAllLanes, lane_block, page); }
};

// The item that a block takes in its turn: there and back over the blocks. Full chunks come first,
// then shorter and shorter ones, and so the blocks get about as many tokens each.
inline __device__ int64_t ItemOfTurn(int turn) {
  const int64_t block = turn % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
  return int64_t{turn} * gridDim.x + block;
}

// An item beyond the last has no tokens.
inline __device__ WarpItem LoadItem(const DecodeParams& p, int64_t index, int64_t num_items,
                                    int lane) {
  WarpItem item;
  if (index >= num_items) return item;
  item.kv_head = static_cast<int>(index % p.cache.num_kv_heads);
  const auto* const words =
      reinterpret_cast<const int32_t*>(p.buffers.items + index / p.cache.num_kv_heads);
  if (lane < kDecodeItemWords) item.word = words[lane];
  return item;
}

// Once its words are here.
inline __device__ void LoadBlocks(const DecodeParams& p, int lane, WarpItem* item) {
  const int32_t* const table =
      p.rows.block_tables + int64_t{item->sequence()} * p.rows.block_table_stride;
  const int page = item->first_page() + lane;
  const int num_pages = (item->num_tokens() + kKvPageTokens - 1) / kKvPageTokens;
  if (lane < num_pages) item->lane_block = __ldg(table + page);
}

// The tiles of an item that warp `warp` takes: warp, warp + kWarps, ...
template <typename T>
__device__ int NumTiles(int num_tokens, int warp) {
  const int all = (num_tokens + T::kTokens - 1) / T::kTokens;
  return (all - warp + kWarps - 1) / kWarps;  // none when all <= warp
}

// Whether the last of them holds the row's own token.
template <typename T>
__device__ bool HasOwnToken(const WarpItem& item, int num_tiles, int warp) {
  const int last = (item.num_tokens() - 1) / T::kTokens;
  return (item.kind() & kEndsRow) != 0 && num_tiles > 0 && last % kWarps == warp;
}

// One warp's stages, filled and emptied in a circle.
template <typename T>
struct TilePipeline {
  uint32_t stages;  // shared addresses
  uint32_t barriers;
  uint64_t policy;
  int fill = 0;   // stage to fill next
  int drain = 0;  // stage to empty next
  uint32_t parity = 0;

  __device__ void Copy(uint32_t to, const uint8_t* from, uint32_t bytes, uint32_t barrier) const {
    BulkCopy(to, from, bytes, barrier, policy);
  }

  // Starts the copies of an item's tile; `index` counts the warp's own.
  __device__ void Issue(const DecodeParams& p, const WarpItem& item, int index, int warp,
                        int lane) {
    const int tile = warp + index * kWarps;
    const int block = item.block(tile / T::kPerPage);
    if (lane == 0) {
      const uint8_t* const page = p.cache.base + p.cache.PageOffset(p.layer, block, item.kv_head);
      const uint32_t to = stages + static_cast<uint32_t>(fill * T::kBytes);
      const uint32_t barrier = barriers + static_cast<uint32_t>(fill * 8);
      ExpectBytes(barrier, T::kBytes);
      if constexpr (T::kPerPage == 1) {
        Copy(to, page, T::kBytes, barrier);
      } else {
        constexpr int kHead = kHeadDim;
        const int part = tile % T::kPerPage;
        const uint8_t* const values = page + T::kPage.value_offset();
        Copy(to, page + part * T::kCodeBytes, T::kCodeBytes, barrier);
        Copy(to + T::kValuesAt, values + part * T::kCodeBytes, T::kCodeBytes, barrier);
        if constexpr (T::kKeyGrids) {
          Copy(to + T::kKeyGridsAt, page + T::kKey.code_bytes(kHead) + part * T::kGridBytes,
               T::kGridBytes, barrier);
        }
        if constexpr (T::kValueGrids) {
          Copy(to + T::kValueGridsAt, values + T::kValue.code_bytes(kHead) + part * T::kGridBytes,
               T::kGridBytes, barrier);
        }
      }
    }
    fill = fill + 1 == T::kStages ? 0 : fill + 1;
  }

  __device__ void Wait() const {
    WaitForPhase(barriers + static_cast<uint32_t>(drain * 8), parity);
  }

  __device__ void Release() {
    __syncwarp();
    drain = drain + 1 == T::kStages ? 0 : drain + 1;
    if (drain == 0) parity ^= 1;
  }
};

}  // namespace assay::engine::cuda
