// Places in host memory for blocks of the cache: who is preempted may leave its keys and values
// there. Numbers only; the memory is the backend's, which may have more of it as time goes on.
//
// Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace assay::engine {

// A block of the cache and a block of host memory, from one to the other.
struct BlockCopy {
  int32_t block = 0;
  int32_t host_block = 0;
};

class HostBlocks {
 public:
  int64_t num_free() const { return num_blocks_ - num_used_; }
  int64_t num_used() const { return num_used_; }

  // One of num_free() blocks; one that was used before where there is one.
  int32_t Take() {
    ++num_used_;
    if (returned_.empty()) return next_++;
    const int32_t block = returned_.back();
    returned_.pop_back();
    return block;
  }

  void Return(int32_t block) {
    --num_used_;
    returned_.push_back(block);
  }

  // There are now `num_blocks`, no fewer than before.
  void GrowTo(int64_t num_blocks) { num_blocks_ = std::max(num_blocks_, num_blocks); }

 private:
  int64_t num_blocks_ = 0;
  int64_t num_used_ = 0;
  int32_t next_ = 0;  // the first that was never used
  std::vector<int32_t> returned_;
};

}  // namespace assay::engine
