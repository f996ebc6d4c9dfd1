// Copies of KV blocks between one GPU's cache and pinned host memory, on a stream of their own
// beside the steps.
//
// A copy begins when the passes launched before it are done. A pass launched after it waits for it
// only where it must: before it writes into a block that is still being copied out, and before it
// reads one that is still being copied in. Copies are made in the order of the calls, a few blocks
// at a time with an event behind them.
//
// Not thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "engine/decoder/cuda/cuda_pass.h"
#include "engine/decoder/cuda/pinned_blocks.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/kv_pages.h"
#include "engine/kv/host_blocks.h"

namespace assay::engine::cuda {

class BlockSwap {
 public:
  // The memory of `cache` outlives it. `compute` is the stream of the passes.
  static absl::StatusOr<std::unique_ptr<BlockSwap>> Make(int device, const KvCache& cache,
                                                         int64_t max_host_bytes,
                                                         cudaStream_t compute);
  ~BlockSwap();

  int64_t num_host_blocks() const { return host_.num_blocks(); }
  absl::Status CopyToHost(std::span<const BlockCopy> copies);
  absl::Status CopyFromHost(std::span<const BlockCopy> copies);

  // Before the pass is launched: its stream waits for the copies that concern it.
  absl::Status HoldBack(const CudaPass& pass);

 private:
  enum class Direction { kOut, kIn };
  // Copies with one event. Serials count up from 1.
  struct Group {
    int64_t serial = 0;
    Event done;
  };

  BlockSwap(int device, const KvCache& cache, int64_t max_host_bytes, cudaStream_t compute)
      : cache_(cache),
        compute_(compute),
        host_(device, cache.block_bytes(), max_host_bytes),
        out_(static_cast<size_t>(cache.num_blocks)),
        in_(static_cast<size_t>(cache.num_blocks)) {}

  absl::Status Copy(std::span<const BlockCopy> copies, Direction direction);
  absl::Status CopyGroup(std::span<const BlockCopy> copies, Direction direction);
  // Takes groups that are done off the list.
  absl::Status ForgetDone();

  const KvCache cache_;
  const cudaStream_t compute_;
  PinnedBlocks host_;
  Stream stream_;
  Event launched_;             // behind the passes launched so far
  std::deque<Group> pending_;  // oldest first
  std::vector<Event> idle_events_;
  int64_t last_serial_ = 0;
  int64_t awaited_ = 0;       // the compute stream waits for groups up to this one
  std::vector<int64_t> out_;  // by block: the last group that copies it out
  std::vector<int64_t> in_;   // likewise in
  std::vector<void*> destinations_;
  std::vector<const void*> sources_;
  std::vector<size_t> sizes_;
};

}  // namespace assay::engine::cuda
