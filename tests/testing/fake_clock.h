// A clock that moves only when the test says so.
#pragma once

#include <mutex>

#include "base/clock.h"

namespace assay::testing {

class FakeClock final : public Clock {
 public:
  absl::Time Now() const override {
    const std::lock_guard lock(mutex_);
    return now_;
  }
  absl::Duration Monotonic() const override {
    const std::lock_guard lock(mutex_);
    return monotonic_;
  }
  void Advance(absl::Duration duration) {
    const std::lock_guard lock(mutex_);
    now_ += duration;
    monotonic_ += duration;
  }
  // A step of the wall clock alone, as NTP or a person does it.
  void StepWall(absl::Duration duration) {
    const std::lock_guard lock(mutex_);
    now_ += duration;
  }

 private:
  mutable std::mutex mutex_;
  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  absl::Duration monotonic_ = absl::Seconds(1000);
};

}  // namespace assay::testing
