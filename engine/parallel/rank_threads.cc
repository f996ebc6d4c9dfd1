#include "engine/parallel/rank_threads.h"

#include <chrono>
#include <utility>

namespace assay::engine {
namespace {

// Longer than the gap between two steps of a busy engine; to be woken takes some 100 us.
constexpr std::chrono::microseconds kLook(300);
constexpr int kLooksPerTime = 64;

// Without giving up the core: on a busy machine it would be back late.
void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename IsReady>
void LookFor(const IsReady& is_ready) {
  const auto end = std::chrono::steady_clock::now() + kLook;
  do {
    for (int look = 0; look < kLooksPerTime; ++look) {
      if (is_ready()) return;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < end);
}

}  // namespace

RankThreads::RankThreads(int size)
    : done_(static_cast<size_t>(size), true), num_done_(std::ssize(done_)) {
  for (int rank = 0; rank < size; ++rank) {
    threads_.emplace_back([this, rank] { Serve(rank); });
  }
}

RankThreads::~RankThreads() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
    ++round_hint_;
  }
  called_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void RankThreads::Serve(int rank) {
  uint64_t seen = 0;
  for (;;) {
    LookFor([&] { return round_hint_.load() != seen; });
    std::unique_lock lock(mutex_);
    called_.wait(lock, [&] { return stops_ || round_ != seen; });
    if (stops_) return;
    seen = round_;
    lock.unlock();
    absl::Status status = body_(rank);  // it stays until all are done
    lock.lock();
    done_[static_cast<size_t>(rank)] = true;
    ++num_done_;
    if (!status.ok() && outcome_.failed_rank < 0) {
      outcome_.failed_rank = rank;
      outcome_.failure = std::move(status);
    }
    --num_pending_hint_;
    answered_.notify_all();
  }
}

template <typename Condition>
bool RankThreads::WaitFor(std::unique_lock<std::mutex>* lock, absl::Duration timeout,
                          const Condition& condition) {
  if (timeout != absl::InfiniteDuration()) {
    return answered_.wait_for(*lock, absl::ToChronoMicroseconds(timeout), condition);
  }
  answered_.wait(*lock, condition);
  return true;
}

RankThreads::Outcome RankThreads::Run(std::function<absl::Status(int)> body,
                                      absl::Duration timeout) {
  {
    const std::lock_guard lock(mutex_);
    body_ = std::move(body);
    done_.assign(done_.size(), false);
    num_done_ = 0;
    outcome_ = {};
    num_pending_hint_ = static_cast<int>(done_.size());
    round_hint_ = ++round_;
  }
  called_.notify_all();
  LookFor([&] { return num_pending_hint_.load() == 0; });
  std::unique_lock lock(mutex_);
  WaitFor(&lock, timeout, [&] { return AllDone() || outcome_.failed_rank >= 0; });
  Outcome outcome = outcome_;
  for (size_t rank = 0; rank < done_.size() && outcome.failed_rank < 0; ++rank) {
    if (!done_[rank]) outcome.silent.push_back(static_cast<int>(rank));
  }
  return outcome;
}

bool RankThreads::WaitForAll(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  return WaitFor(&lock, timeout, [&] { return AllDone(); });
}

}  // namespace assay::engine
