#include "engine/decoder/cuda_step_inputs.h"

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
  ASSAY_ASSIGN_OR_RETURN(inputs.pinned_, PinnedBuffer<std::byte>::Allocate(size));
  ASSAY_ASSIGN_OR_RETURN(inputs.memory_, DeviceBuffer<std::byte>::Allocate(size));
  std::memset(inputs.pinned_.data(), 0, static_cast<size_t>(size));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaMemset(inputs.memory_.data(), 0, static_cast<size_t>(size)));
  inputs.host_ = ViewOf(limits, inputs.pinned_.data(), &size);
  inputs.device_ = ViewOf(limits, inputs.memory_.data(), &size);
  inputs.first_changed_ = limits.max_sequences;
  return inputs;
}

void StepInputs::SetBlockTable(int sequence, std::span<const int32_t> blocks) {
  int32_t* table = host_.block_tables + int64_t{sequence} * limits_.table_stride;
  ASSAY_CHECK(static_cast<int>(blocks.size()) <= limits_.table_stride, "{} blocks", blocks.size());
  if (std::equal(blocks.begin(), blocks.end(), table)) return;
  std::ranges::copy(blocks, table);
  first_changed_ = std::min(first_changed_, sequence);
  last_changed_ = std::max(last_changed_, sequence);
}

absl::Status StepInputs::Upload(cudaStream_t stream) {
  const auto head_bytes =
      static_cast<size_t>(reinterpret_cast<std::byte*>(host_.block_tables) - pinned_.data());
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(memory_.data(), pinned_.data(), head_bytes, cudaMemcpyHostToDevice, stream));
  if (last_changed_ < first_changed_) return absl::OkStatus();
  const int64_t first = int64_t{first_changed_} * limits_.table_stride;
  const int64_t count = int64_t{last_changed_ - first_changed_ + 1} * limits_.table_stride;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(
      device_.block_tables + first, host_.block_tables + first,
      static_cast<size_t>(count) * sizeof(int32_t), cudaMemcpyHostToDevice, stream));
  first_changed_ = limits_.max_sequences;
  last_changed_ = -1;
  return absl::OkStatus();
}

}  // namespace assay::engine::cuda
