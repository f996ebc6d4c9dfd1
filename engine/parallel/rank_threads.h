// A thread for each rank of a gang. The caller has all of them do something at once and waits:
// until all are done, one has failed, or time is up. What then becomes of the others is the
// caller's to say: it ends what they wait for, and waits again.
//
// Threads look for work for a while before they sleep, for to be woken takes longer than the gap
// between two steps.
//
// Not thread-safe: one thread calls.
#pragma once

#include <absl/status/status.h>
#include <absl/time/time.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace assay::engine {

class RankThreads {
 public:
  explicit RankThreads(int size);
  // All ranks are done.
  ~RankThreads();

  struct Outcome {
    absl::Status failure;     // the first that failed
    int failed_rank = -1;     // whose it is
    std::vector<int> silent;  // without a failure: who is not done; empty: all are, and well

    bool ok() const { return failed_rank < 0 && silent.empty(); }
  };

  // Calls body(rank) on the thread of every rank. All ranks are done with what they did before.
  // What `body` refers to lives until all are done.
  Outcome Run(std::function<absl::Status(int rank)> body, absl::Duration timeout);

  // Waits for all ranks; false when time is up.
  bool WaitForAll(absl::Duration timeout);

 private:
  void Serve(int rank);
  bool AllDone() const { return num_done_ == std::ssize(done_); }
  template <typename Condition>
  bool WaitFor(std::unique_lock<std::mutex>* lock, absl::Duration timeout,
               const Condition& condition);

  std::mutex mutex_;  // of all below but the hints
  std::condition_variable called_;
  std::condition_variable answered_;
  uint64_t round_ = 0;
  std::function<absl::Status(int)> body_;
  std::vector<bool> done_;  // by rank
  std::ptrdiff_t num_done_ = 0;
  Outcome outcome_;
  bool stops_ = false;
  // For those who look without waiting.
  std::atomic<uint64_t> round_hint_ = 0;
  std::atomic<int> num_pending_hint_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace assay::engine
