// Memory for weights, activations and the KV cache: zeroed, aligned to a cache line, and in huge
// pages where the kernel grants them (a cache of gigabytes read in 4 KiB pages misses the TLB at
// every page). Pages that are never touched take no memory.
#pragma once

#include <cstddef>
#include <utility>

namespace assay::engine::cpu {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Aborts when the machine has no address space for it.
  explicit AlignedBuffer(size_t num_floats);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
    return *this;
  }

  float* data() { return data_; }
  const float* data() const { return data_; }
  size_t size() const { return size_; }

  // At least `num_floats` floats; what was there is lost when it has to grow.
  void EnsureSize(size_t num_floats);

 private:
  float* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_bytes_ = 0;
};

}  // namespace assay::engine::cpu
