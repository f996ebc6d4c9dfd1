#include "engine/decoder/cuda/block_swap.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace assay::engine::cuda {
namespace {

// A third of a millisecond over PCIe: what a pass waits for at most without need.
constexpr int64_t kGroupBytes = int64_t{16} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<BlockSwap>> BlockSwap::Make(int device, const KvCache& cache,
                                                           int64_t max_host_bytes,
                                                           cudaStream_t compute) {
  std::unique_ptr<BlockSwap> swap(new BlockSwap(device, cache, max_host_bytes, compute));
  ASSAY_ASSIGN_OR_RETURN(swap->stream_, MakeStream());
  ASSAY_ASSIGN_OR_RETURN(swap->launched_, MakeEvent());
  return swap;
}

BlockSwap::~BlockSwap() {
  if (stream_ != nullptr) (void)cudaStreamSynchronize(stream_.get());
}

absl::Status BlockSwap::CopyToHost(std::span<const BlockCopy> copies) {
  return Copy(copies, Direction::kOut);
}

absl::Status BlockSwap::CopyFromHost(std::span<const BlockCopy> copies) {
  return Copy(copies, Direction::kIn);
}

absl::Status BlockSwap::Copy(std::span<const BlockCopy> copies, Direction direction) {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(launched_.get(), compute_));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamWaitEvent(stream_.get(), launched_.get(), 0));
  const auto at_once =
      static_cast<size_t>(std::max<int64_t>(1, kGroupBytes / cache_.block_bytes()));
  for (size_t begin = 0; begin < copies.size(); begin += at_once) {
    ASSAY_RETURN_IF_ERROR(
        CopyGroup(copies.subspan(begin, std::min(at_once, copies.size() - begin)), direction));
  }
  return absl::OkStatus();
}

absl::Status BlockSwap::CopyGroup(std::span<const BlockCopy> copies, Direction direction) {
  destinations_.clear();
  sources_.clear();
  const int64_t layer_bytes = cache_.block_bytes_of_layer();
  const int64_t serial = ++last_serial_;
  for (const BlockCopy& copy : copies) {
    ASSAY_CHECK(copy.host_block < host_.num_blocks(), "host block {}", copy.host_block);
    host_.NoteUse(copy.host_block);
    std::byte* host = host_.Block(copy.host_block);
    for (int layer = 0; layer < cache_.num_layers; ++layer, host += layer_bytes) {
      uint8_t* pages = cache_.base + cache_.PageOffset(layer, copy.block, 0);
      destinations_.push_back(direction == Direction::kOut ? static_cast<void*>(host) : pages);
      sources_.push_back(direction == Direction::kOut ? static_cast<void*>(pages) : host);
    }
    (direction == Direction::kOut ? out_ : in_)[static_cast<size_t>(copy.block)] = serial;
  }
  sizes_.assign(sources_.size(), static_cast<size_t>(layer_bytes));
  cudaMemcpyAttributes attributes = {};
  attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  size_t first_with_attributes = 0;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyBatchAsync(destinations_.data(), sources_.data(),
                                                  sizes_.data(), sizes_.size(), &attributes,
                                                  &first_with_attributes, 1, stream_.get()));
  if (idle_events_.empty()) {
    ASSAY_ASSIGN_OR_RETURN(Event event, MakeEvent());
    idle_events_.push_back(std::move(event));
  }
  pending_.push_back({.serial = serial, .done = std::move(idle_events_.back())});
  idle_events_.pop_back();
  return CudaStatus(cudaEventRecord(pending_.back().done.get(), stream_.get()), "cudaEventRecord");
}

absl::Status BlockSwap::ForgetDone() {
  while (!pending_.empty()) {
    const cudaError_t state = cudaEventQuery(pending_.front().done.get());
    if (state == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return absl::OkStatus();
    }
    ASSAY_RETURN_IF_ERROR(CudaStatus(state, "a copy of KV blocks"));
    awaited_ = std::max(awaited_, pending_.front().serial);
    idle_events_.push_back(std::move(pending_.front().done));
    pending_.pop_front();
  }
  return absl::OkStatus();
}

absl::Status BlockSwap::HoldBack(const CudaPass& pass) {
  ASSAY_RETURN_IF_ERROR(ForgetDone());
  if (awaited_ == last_serial_) return absl::OkStatus();
  int64_t needed = 0;
  for (const std::span<const int32_t> table : pass.block_tables) {
    for (const int32_t block : table) needed = std::max(needed, in_[static_cast<size_t>(block)]);
  }
  const auto writes = [&](int sequence, int64_t first_position, int64_t num_rows) {
    const std::span<const int32_t> table = pass.block_tables[static_cast<size_t>(sequence)];
    const int64_t last = (first_position + num_rows - 1) / kKvPageTokens;
    for (int64_t i = first_position / kKvPageTokens; i <= last; ++i) {
      needed = std::max(needed, out_[static_cast<size_t>(table[static_cast<size_t>(i)])]);
    }
  };
  for (const CudaPass::Row& row : pass.decode_rows) writes(row.sequence, row.position, 1);
  for (const PrefillChunk& run : pass.prompt_runs) {
    writes(run.sequence, run.first_position, run.num_rows);
  }
  if (needed <= awaited_) return absl::OkStatus();
  const auto group =
      std::ranges::find_if(pending_, [&](const Group& g) { return g.serial == needed; });
  ASSAY_CHECK(group != pending_.end(), "copies {} are not pending", needed);
  awaited_ = needed;
  return CudaStatus(cudaStreamWaitEvent(compute_, group->done.get(), 0), "cudaStreamWaitEvent");
}

}  // namespace assay::engine::cuda
