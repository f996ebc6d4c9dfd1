#include "engine/decoder/cuda_gang.h"

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
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
// How often threads look for each other before they sleep, half a millisecond or so: to be woken
// takes some 100 us where a step takes a few thousand, and between the steps of a busy engine less.
constexpr int kLooks = 1000;

template <typename IsReady>
void LookFor(const IsReady& is_ready) {
  for (int look = 0; look < kLooks && !is_ready(); ++look) std::this_thread::yield();
}

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

struct CudaGang::Exchange {
  explicit Exchange(size_t size) : done(size, true) {}

  absl::Mutex mutex;
  uint64_t round ABSL_GUARDED_BY(mutex) = 0;
  const Body* body ABSL_GUARDED_BY(mutex) = nullptr;
  std::vector<bool> done ABSL_GUARDED_BY(mutex);  // by rank
  int first_failed ABSL_GUARDED_BY(mutex) = -1;
  absl::Status failure ABSL_GUARDED_BY(mutex);
  bool stops ABSL_GUARDED_BY(mutex) = false;
  // For those who look without waiting, hints at what the mutex guards.
  std::atomic<uint64_t> latest_round = 0;
  std::atomic<int> num_pending = 0;

  bool AllDone() const ABSL_SHARED_LOCKS_REQUIRED(mutex) {
    return std::ranges::all_of(done, [](bool one) { return one; });
  }
  bool AllDoneOrFailed() const ABSL_SHARED_LOCKS_REQUIRED(mutex) {
    return first_failed >= 0 || AllDone();
  }
};

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
                        .swap_bytes = options.swap_bytes / size,
                        .communicator_bytes = communicator_bytes,
                        .num_ranks_on_device = static_cast<int>(std::ranges::count(
                            options.devices, options.devices[static_cast<size_t>(rank)]))}));
    const int64_t own = gang->rank(rank).memory_plan().num_blocks;
    num_blocks = rank == 0 ? own : std::min(num_blocks, own);
  }
  if (size > 1) {
    ASSAY_RETURN_IF_ERROR(gang->Connect(options, window_bytes));
    gang->StartThreads();
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

void CudaGang::StartThreads() {
  exchange_ = std::make_shared<Exchange>(ranks_.size());
  for (int number = 0; number < size(); ++number) {
    threads_.emplace_back([this, number, exchange = exchange_] {
      const auto index = static_cast<size_t>(number);
      uint64_t seen = 0;
      for (;;) {
        const Body* body = nullptr;
        LookFor([&] { return exchange->latest_round.load() != seen; });
        {
          absl::MutexLock lock(&exchange->mutex);
          const auto is_called = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
            return exchange->stops || exchange->round != seen;
          };
          exchange->mutex.Await(absl::Condition(&is_called));
          if (exchange->stops) return;
          seen = exchange->round;
          body = exchange->body;
        }
        const absl::Status status = (*body)(*ranks_[index], number);
        absl::MutexLock lock(&exchange->mutex);
        exchange->done[index] = true;
        if (!status.ok() && exchange->first_failed < 0) {
          exchange->first_failed = number;
          exchange->failure = status;
        }
        --exchange->num_pending;
      }
    });
  }
}

absl::Status CudaGang::ForEach(const Body& body, absl::Duration timeout) {
  ASSAY_RETURN_IF_ERROR(failure_);
  if (threads_.empty()) return body(*ranks_[0], 0);
  Exchange* const exchange = exchange_.get();
  {
    absl::MutexLock lock(&exchange_->mutex);
    exchange_->body = &body;
    std::fill(exchange_->done.begin(), exchange_->done.end(), false);
    exchange_->num_pending = size();
    exchange_->latest_round = ++exchange_->round;
  }
  LookFor([&] { return exchange->num_pending.load() == 0; });
  absl::MutexLock lock(&exchange_->mutex);
  exchange_->mutex.AwaitWithTimeout(absl::Condition(exchange, &Exchange::AllDoneOrFailed), timeout);
  if (exchange_->AllDone() && exchange_->first_failed < 0) return absl::OkStatus();

  if (exchange_->first_failed >= 0) {
    failure_ = absl::Status(exchange_->failure.code(),
                            fmt::format("{}: {}", NameOf(exchange_->first_failed),
                                        std::string(exchange_->failure.message())));
  } else {
    std::string silent;
    for (int rank = 0; rank < size(); ++rank) {
      if (exchange_->done[static_cast<size_t>(rank)]) continue;
      silent += (silent.empty() ? "" : ", ") + NameOf(rank);
      const absl::Status health = communicators_[static_cast<size_t>(rank)]->Health();
      if (!health.ok()) silent += fmt::format(" [{}]", std::string(health.message()));
    }
    failure_ = Internal("no answer within {} from {}; the gang is given up",
                        absl::FormatDuration(timeout), silent);
  }
  communicators_[0]->Abort();
  const bool is_load = timeout == absl::InfiniteDuration();
  exchange_->mutex.AwaitWithTimeout(absl::Condition(exchange, &Exchange::AllDone),
                                    is_load ? timeout : kGrace);
  return failure_;
}

CudaGang::~CudaGang() {
  if (threads_.empty()) return;
  {
    absl::MutexLock lock(&exchange_->mutex);
    exchange_->stops = true;
    if (!exchange_->AllDone()) {
      // A thread that waits for a dead GPU comes back never, and what it holds cannot be freed
      // under it. The failure has been answered; all that is left to do is what INTERNAL announced.
      LogWith(spdlog::level::critical, {}, "a rank does not come back: the process ends");
      std::_Exit(EXIT_FAILURE);
    }
  }
  for (std::thread& thread : threads_) thread.join();
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
