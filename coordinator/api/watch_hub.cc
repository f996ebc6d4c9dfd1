#include "coordinator/api/watch_hub.h"

#include <algorithm>

namespace assay::coordinator {

WatchHub::WatchHub() : thread_([this] { Loop(); }) {}

void WatchHub::Add(absl::Duration interval, std::function<bool()> step,
                   std::function<void()> abandon) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopped_) {
      added_.push_back({interval, std::move(step), std::move(abandon), {}});
      changed_.notify_one();
      return;
    }
  }
  abandon();
}

void WatchHub::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void WatchHub::Loop() {
  std::list<Watch> watches;
  while (true) {
    // A deadline of a day instead of none: wait_until with the largest time overflows.
    auto next = std::chrono::steady_clock::now() + std::chrono::hours(24);
    for (const Watch& watch : watches) next = std::min(next, watch.due);
    bool stopping = false;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, next, [this] { return stopped_ || !added_.empty(); });
      watches.splice(watches.end(), added_);
      stopping = stopped_;
    }
    if (stopping) {
      for (const Watch& watch : watches) watch.abandon();
      return;
    }
    const auto now = std::chrono::steady_clock::now();
    for (auto it = watches.begin(); it != watches.end();) {
      if (it->due > now) {
        ++it;
      } else if (it->step()) {
        it->due = now + absl::ToChronoNanoseconds(it->interval);
        ++it;
      } else {
        it = watches.erase(it);
      }
    }
  }
}

}  // namespace assay::coordinator
