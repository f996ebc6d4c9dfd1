#include "coordinator/api/watch_hub.h"

#include <absl/time/clock.h>

#include <algorithm>

namespace assay::coordinator {

WatchHub::WatchHub() : thread_([this] { Loop(); }) {}

void WatchHub::Add(absl::Duration interval, std::function<bool()> step,
                   std::function<void()> abandon) {
  {
    absl::MutexLock lock(&mutex_);
    if (!stopped_) {
      added_.push_back({interval, std::move(step), std::move(abandon), absl::InfinitePast()});
      return;
    }
  }
  abandon();
}

void WatchHub::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void WatchHub::Loop() {
  std::list<Watch> watches;
  while (true) {
    absl::Time next = absl::InfiniteFuture();
    for (const Watch& watch : watches) next = std::min(next, watch.due);
    bool stopping = false;
    {
      const auto news = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopped_ || !added_.empty();
      };
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithDeadline(absl::Condition(&news), next);
      watches.splice(watches.end(), added_);
      stopping = stopped_;
    }
    if (stopping) {
      for (const Watch& watch : watches) watch.abandon();
      return;
    }
    const absl::Time now = absl::Now();
    for (auto it = watches.begin(); it != watches.end();) {
      if (it->due > now) {
        ++it;
      } else if (it->step()) {
        it->due = now + it->interval;
        ++it;
      } else {
        it = watches.erase(it);
      }
    }
  }
}

}  // namespace assay::coordinator
