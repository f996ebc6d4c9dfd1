#include "engine/decoder/cuda/step_inputs.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"

namespace assay::engine::cuda {
namespace {

constexpr int64_t kAlignment = 16;

// The next array of `count` elements behind *offset.
template <typename T>
T* Place(std::byte* base, int64_t count, int64_t* offset) {
  T* place = base == nullptr ? nullptr : reinterpret_cast<T*>(base + *offset);
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  *offset += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return place;
}

}  // namespace

StepInputs::View StepInputs::ViewOf(const Limits& limits, std::byte* base, int64_t* size) {
  View view;
  int64_t offset = 0;
  view.ids = Place<int32_t>(base, limits.max_rows, &offset);
  view.positions = Place<int32_t>(base, limits.max_rows, &offset);
  view.sequences = Place<int32_t>(base, limits.max_rows, &offset);
  view.sampled_rows = Place<int32_t>(base, limits.max_sampled, &offset);
  view.sampling = Place<RowSampling>(base, limits.max_sampled, &offset);
  view.tiles = Place<PrefillChunk>(base, limits.max_tiles, &offset);
  // Last: what is before them is one copy.
  view.block_tables =
      Place<int32_t>(base, int64_t{limits.max_sequences} * limits.table_stride, &offset);
  *size = offset;
  return view;
}

int64_t StepInputs::Bytes(const Limits& limits) {
  int64_t size = 0;
  ViewOf(limits, nullptr, &size);
  return size;
}

absl::StatusOr<StepInputs> StepInputs::Make(const Limits& limits) {
  StepInputs inputs;
  inputs.limits_ = limits;
  int64_t size = Bytes(limits);
  for (int side = 0; side < 2; ++side) {
    ASSAY_ASSIGN_OR_RETURN(inputs.pinned_[side], PinnedBuffer<std::byte>::Allocate(size));
    ASSAY_ASSIGN_OR_RETURN(inputs.uploaded_[side], MakeEvent());
    std::memset(inputs.pinned_[side].data(), 0, static_cast<size_t>(size));
    inputs.host_[side] = ViewOf(limits, inputs.pinned_[side].data(), &size);
  }
  ASSAY_ASSIGN_OR_RETURN(inputs.memory_, DeviceBuffer<std::byte>::Allocate(size));
  ASSAY_RETURN_IF_ERROR(SetBytes(inputs.memory_.data(), 0, inputs.memory_.bytes()));
  inputs.device_ = ViewOf(limits, inputs.memory_.data(), &size);
  inputs.block_tables_.resize(static_cast<size_t>(limits.max_sequences) *
                              static_cast<size_t>(limits.table_stride));
  inputs.first_changed_ = limits.max_sequences;
  return inputs;
}

absl::Status StepInputs::Turn() {
  side_ = 1 - side_;
  return CudaStatus(cudaEventSynchronize(uploaded_[side_].get()), "the upload of step inputs");
}

void StepInputs::SetBlockTable(int sequence, std::span<const int32_t> blocks) {
  int32_t* table = block_tables_.data() + int64_t{sequence} * limits_.table_stride;
  ASSAY_CHECK(static_cast<int>(blocks.size()) <= limits_.table_stride, "{} blocks", blocks.size());
  if (std::equal(blocks.begin(), blocks.end(), table)) return;
  std::ranges::copy(blocks, table);
  first_changed_ = std::min(first_changed_, sequence);
  last_changed_ = std::max(last_changed_, sequence);
}

absl::Status StepInputs::Upload(cudaStream_t stream) {
  const std::byte* pinned = pinned_[side_].data();
  int32_t* pinned_tables = host().block_tables;
  const auto head_bytes =
      static_cast<size_t>(reinterpret_cast<const std::byte*>(pinned_tables) - pinned);
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(memory_.data(), pinned, head_bytes, cudaMemcpyHostToDevice, stream));
  if (last_changed_ >= first_changed_) {
    const int64_t first = int64_t{first_changed_} * limits_.table_stride;
    const int64_t count = int64_t{last_changed_ - first_changed_ + 1} * limits_.table_stride;
    std::copy_n(block_tables_.data() + first, count, pinned_tables + first);
    ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(device_.block_tables + first, pinned_tables + first,
                                               static_cast<size_t>(count) * sizeof(int32_t),
                                               cudaMemcpyHostToDevice, stream));
    first_changed_ = limits_.max_sequences;
    last_changed_ = -1;
  }
  return CudaStatus(cudaEventRecord(uploaded_[side_].get(), stream), "cudaEventRecord");
}

}  // namespace assay::engine::cuda
