// Pinned host memory for blocks of the KV cache, taken while it is needed: pinning costs seconds
// for each 10 GB and keeps memory from others, and most jobs never preempt anybody. A thread of its
// own stays some way ahead of what is in use, so that nobody waits for memory. It leaves a quarter
// of the machine's memory to others, among them the runners of other GPUs.
//
// num_blocks, Block and NoteUse are for one thread; memory that was counted once stays.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace assay::engine::cuda {

class PinnedBlocks {
 public:
  // At most max_bytes, for copies of `device`. Where the system has less to give, less is used.
  PinnedBlocks(int device, int64_t block_bytes, int64_t max_bytes);
  ~PinnedBlocks();
  PinnedBlocks(const PinnedBlocks&) = delete;
  PinnedBlocks& operator=(const PinnedBlocks&) = delete;

  // Those that there are by now.
  int64_t num_blocks() const { return num_slabs_.load() * blocks_per_slab_; }

  std::byte* Block(int64_t block) const {
    return slabs_[static_cast<size_t>(block / blocks_per_slab_)] +
           block % blocks_per_slab_ * block_bytes_;
  }

  // `block` is in use: more are prepared behind it.
  void NoteUse(int64_t block);

 private:
  void Prepare();
  std::byte* PinSlab() const;

  const int device_;
  const int64_t block_bytes_;
  const int64_t blocks_per_slab_;
  std::vector<std::byte*> slabs_;       // as many as there may be
  std::atomic<int64_t> num_slabs_ = 0;  // that are there
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t num_wanted_ = 0;  // slabs
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace assay::engine::cuda
