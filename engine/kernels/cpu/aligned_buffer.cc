#include "engine/kernels/cpu/aligned_buffer.h"

#include <sys/mman.h>

#include "base/status.h"

namespace assay::engine::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

AlignedBuffer::AlignedBuffer(size_t num_floats) : size_(num_floats) {
  if (num_floats == 0) return;
  mapped_bytes_ = num_floats * sizeof(float);
  // Large buffers end on a huge page, so that their last part is not left in small ones.
  if (mapped_bytes_ >= kHugePage)
    mapped_bytes_ = (mapped_bytes_ + kHugePage - 1) & ~(kHugePage - 1);
  void* memory = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSAY_CHECK(memory != MAP_FAILED, "no address space for {} bytes", mapped_bytes_);
  if (mapped_bytes_ >= kHugePage) (void)madvise(memory, mapped_bytes_, MADV_HUGEPAGE);
  data_ = static_cast<float*>(memory);
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) (void)munmap(data_, mapped_bytes_);
}

void AlignedBuffer::EnsureSize(size_t num_floats) {
  if (num_floats > size_) *this = AlignedBuffer(num_floats + num_floats / 4);
}

}  // namespace assay::engine::cpu
