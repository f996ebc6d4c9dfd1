#include "engine/decoder/cuda/cuda_gang.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "engine/parallel/nccl/nccl_communicator.h"
#include "engine/parallel/peer/peer_communicator.h"

namespace assay::engine::cuda {
namespace {

// For ranks whose waits were ended to come back.
constexpr absl::Duration kGrace = absl::Seconds(10);
bool UsesPeerAccess(const CudaRunnerOptions& options) {
  switch (options.transport) {
    case GangTransport::kPeer:
      return true;
    case GangTransport::kNccl:
      return false;
    case GangTransport::kAuto:
      break;
  }
  return HavePeerAccess(options.devices);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaGang>> CudaGang::Load(const std::string& model_dir,
                                                         const CudaRunnerOptions& options,
                                                         const CudaDecoder::Limits& limits) {
  std::unique_ptr<CudaGang> gang(new CudaGang(options.pass_timeout));
  gang->devices_ = options.devices;
  const int size = static_cast<int>(options.devices.size());
  std::optional<RandomWeights> random_weights;
  if (options.random_weights) random_weights = {.bit_width = options.random_weight_bits};
  for (int rank = 0; rank < size; ++rank) {
    ASSAY_ASSIGN_OR_RETURN(gang->plans_.emplace_back(),
                           PlanCudaModel(model_dir, random_weights, rank, size));
  }
  const std::vector<int64_t> window_bytes = CudaDecoder::WindowBytes(gang->plans_[0].shard, limits);
  int64_t communicator_bytes = 0;
  if (size > 1) {
    communicator_bytes = UsesPeerAccess(options) ? PeerCommunicatorBytes(size, window_bytes)
                                                 : NcclCommunicatorBytes(size, window_bytes);
  }
  int64_t num_blocks = 0;
  for (int rank = 0; rank < size; ++rank) {
    ASSAY_ASSIGN_OR_RETURN(
        gang->ranks_.emplace_back(),
        CudaRank::Plan(&gang->plans_[static_cast<size_t>(rank)],
                       {.device = options.devices[static_cast<size_t>(rank)],
                        .limits = limits,
                        .max_num_seqs = options.max_num_seqs,
                        .kv_cache_bytes = options.kv_cache_bytes / size,
                        .max_forward_len = options.max_forward_len,
                        .swap_bytes = options.swap_bytes / size,
                        .communicator_bytes = communicator_bytes,
                        .num_ranks_on_device = static_cast<int>(std::ranges::count(
                            options.devices, options.devices[static_cast<size_t>(rank)]))}));
    const int64_t own = gang->rank(rank).memory_plan().num_blocks;
    num_blocks = rank == 0 ? own : std::min(num_blocks, own);
  }
  if (size > 1) {
    ASSAY_RETURN_IF_ERROR(gang->Connect(options, window_bytes));
    gang->threads_ = std::make_unique<RankThreads>(size);
  }
  // From a cold disk that takes minutes, and nobody waits for another rank.
  ASSAY_RETURN_IF_ERROR(gang->ForEach(
      [&](CudaRank& rank, int number) {
        return rank.Load(num_blocks, size == 1
                                         ? nullptr
                                         : gang->communicators_[static_cast<size_t>(number)].get());
      },
      absl::InfiniteDuration()));
  ASSAY_RETURN_IF_ERROR(gang->ForEach([](CudaRank& rank, int) { return rank.WarmUp(); }));
  ASSAY_RETURN_IF_ERROR(gang->ForEach([](CudaRank& rank, int) { return rank.CaptureGraphs(); }));
  return gang;
}

absl::Status CudaGang::Connect(const CudaRunnerOptions& options,
                               const std::vector<int64_t>& window_bytes) {
  if (UsesPeerAccess(options)) {
    ASSAY_ASSIGN_OR_RETURN(communicators_, MakePeerCommunicators(devices_, window_bytes));
    return absl::OkStatus();
  }
  ASSAY_ASSIGN_OR_RETURN(auto communicators, MakeNcclCommunicators(devices_, window_bytes));
  for (auto& communicator : communicators) communicators_.push_back(std::move(communicator));
  LogWith(spdlog::level::info, {}, "the GPUs of the gang are connected through NCCL");
  return absl::OkStatus();
}

absl::Status CudaGang::ForEach(const Body& body, absl::Duration timeout) {
  ASSAY_RETURN_IF_ERROR(failure_);
  if (threads_ == nullptr) return body(*ranks_[0], 0);
  const RankThreads::Outcome outcome =
      threads_->Run([&](int number) { return body(rank(number), number); }, timeout);
  if (outcome.ok()) return absl::OkStatus();
  failure_ = Describe(outcome, timeout);
  communicators_[0]->Abort();
  const bool is_load = timeout == absl::InfiniteDuration();
  threads_->WaitForAll(is_load ? timeout : kGrace);
  return failure_;
}

absl::Status CudaGang::Describe(const RankThreads::Outcome& outcome, absl::Duration timeout) {
  if (outcome.failed_rank >= 0) {
    return absl::Status(
        outcome.failure.code(),
        fmt::format("{}: {}", NameOf(outcome.failed_rank), std::string(outcome.failure.message())));
  }
  std::string silent;
  for (const int rank : outcome.silent) {
    silent += (silent.empty() ? "" : ", ") + NameOf(rank);
    const absl::Status health = communicators_[static_cast<size_t>(rank)]->Health();
    if (!health.ok()) silent += fmt::format(" [{}]", std::string(health.message()));
  }
  return Internal("no answer within {} from {}; the gang is given up",
                  absl::FormatDuration(timeout), silent);
}

CudaGang::~CudaGang() {
  if (threads_ == nullptr) return;
  if (!threads_->WaitForAll(absl::ZeroDuration())) {
    // A thread that waits for a dead GPU comes back never, and what it holds cannot be freed under
    // it. The failure has been answered; all that is left to do is what INTERNAL announced.
    LogWith(spdlog::level::critical, {}, "a rank does not come back: the process ends");
    std::_Exit(EXIT_FAILURE);
  }
  threads_.reset();
  // Graphs go before what they use; a communicator that goes first may hang.
  ranks_.clear();
}

int64_t CudaGang::memory_bytes() const {
  int64_t bytes = 0;
  for (const auto& rank : ranks_) bytes += rank->memory_bytes();
  return bytes;
}

std::string CudaGang::NameOf(int rank) const {
  return fmt::format("rank {} of {} (cuda:{})", rank, size(), devices_[static_cast<size_t>(rank)]);
}

}  // namespace assay::engine::cuda
