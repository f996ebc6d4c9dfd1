// Time, as a dependency: whoever needs the time takes a Clock in its constructor, so that a test or
// a simulation owns it.
#pragma once

#include <absl/time/time.h>

#include <cstdint>

namespace assay {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // Wall time, for what is stored and shown. May step.
  virtual absl::Time Now() const = 0;

  // Time that never goes back, for deadlines, leases and durations. Its zero is arbitrary and not
  // shared between processes.
  virtual absl::Duration Monotonic() const = 0;

  // Microseconds since 1970, as the database stores them.
  int64_t NowMicros() const { return absl::ToUnixMicros(Now()); }
};

// The machine's clocks.
class RealClock final : public Clock {
 public:
  absl::Time Now() const override;
  absl::Duration Monotonic() const override;

  // One for the whole process.
  static const RealClock* Get();
};

}  // namespace assay
