// Virtual time: a queue of events, and the clocks that processes read.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "tests/simulation/mutants.h"

namespace assay::simulation {

// Time since the beginning of the simulation.
using Instant = absl::Duration;

// Runs what is due, in order of time, equal times in the order in which they were asked for.
class EventQueue {
 public:
  Instant now() const { return now_; }

  void At(Instant time, std::function<void()> work) {
    events_.push({std::max(time, now_), next_number_++, std::move(work)});
  }
  void After(absl::Duration delay, std::function<void()> work) {
    At(now_ + delay, std::move(work));
  }
  // False when nothing is left.
  bool RunNext() {
    if (events_.empty()) return false;
    // The top of a priority queue is constant, and the work is not wanted twice.
    Event event = std::move(const_cast<Event&>(events_.top()));
    events_.pop();
    now_ = event.time;
    event.work();
    return true;
  }
  int64_t num_events() const { return next_number_; }

 private:
  struct Event {
    Instant time;
    int64_t number = 0;
    std::function<void()> work;
    bool operator<(const Event& other) const {  // the top is the largest: the soonest
      return std::pair(time, number) > std::pair(other.time, other.number);
    }
  };
  Instant now_;
  int64_t next_number_ = 0;
  std::priority_queue<Event> events_;
};

// A machine's clocks. Monotonic time has another zero after each start of the process; wall time
// steps when somebody sets it.
class MachineClock final : public Clock {
 public:
  explicit MachineClock(const EventQueue* events) : events_(events) {}

  absl::Time Now() const override {
    return absl::FromUnixSeconds(1'700'000'000) + events_->now() + wall_step_;
  }
  absl::Duration Monotonic() const override {
    const absl::Duration monotonic = events_->now() + zero_;
    if (!follows_wall_ || wall_step_ == absl::ZeroDuration()) return monotonic;
    CountMutation();
    return monotonic + wall_step_;
  }

  void StepWall(absl::Duration step) { wall_step_ += step; }
  void SetZero(absl::Duration zero) { zero_ = zero; }
  absl::Duration zero() const { return zero_; }
  void FollowWall() { follows_wall_ = true; }  // a planted bug

 private:
  const EventQueue* const events_;
  absl::Duration wall_step_;
  absl::Duration zero_;
  bool follows_wall_ = false;
};

}  // namespace assay::simulation
