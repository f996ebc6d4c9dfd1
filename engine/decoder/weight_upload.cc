#include "engine/decoder/weight_upload.h"

#include <algorithm>

#include "base/status.h"

namespace assay::engine::cuda {
namespace {

constexpr int64_t kSlotBytes = int64_t{32} << 20;

}  // namespace

absl::StatusOr<WeightUpload> WeightUpload::Make(cudaStream_t stream) {
  WeightUpload upload;
  upload.stream_ = stream;
  for (Slot& slot : upload.slots_) {
    ASSAY_ASSIGN_OR_RETURN(slot.buffer, PinnedBuffer<std::byte>::Allocate(kSlotBytes));
    ASSAY_ASSIGN_OR_RETURN(slot.sent, MakeEvent());
  }
  return upload;
}

absl::Status WeightUpload::Copy(void* destination, int64_t size, const Fill& fill) {
  for (int64_t offset = 0; offset < size; offset += kSlotBytes) {
    Slot& slot = slots_[next_];
    next_ = 1 - next_;
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(slot.sent.get()));
    const int64_t part = std::min(kSlotBytes, size - offset);
    ASSAY_RETURN_IF_ERROR(fill(offset, part, slot.buffer.data()));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(static_cast<std::byte*>(destination) + offset,
                                               slot.buffer.data(), static_cast<size_t>(part),
                                               cudaMemcpyHostToDevice, stream_));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(slot.sent.get(), stream_));
  }
  return absl::OkStatus();
}

absl::Status WeightUpload::Finish() {
  return CudaStatus(cudaStreamSynchronize(stream_), "the upload of weights");
}

}  // namespace assay::engine::cuda
