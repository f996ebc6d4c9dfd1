// The wall clock of a process started with clock_shim.cc, moved from outside.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace assay::chaos {

class ShiftedClock {
 public:
  // `path` is the file through which process and test share the offset.
  static absl::StatusOr<std::unique_ptr<ShiftedClock>> Create(const std::string& path);
  ~ShiftedClock();
  ShiftedClock(const ShiftedClock&) = delete;
  ShiftedClock& operator=(const ShiftedClock&) = delete;

  // For the process; its children inherit them and the clock.
  std::vector<std::string> Environment() const;

  // Off the machine's clock by so much from now on.
  void SetOffset(absl::Duration offset);

 private:
  ShiftedClock(std::string path, std::atomic<int64_t>* micros)
      : path_(std::move(path)), micros_(micros) {}
  const std::string path_;
  std::atomic<int64_t>* const micros_;
};

// Empty, or why clocks cannot be shifted in this build.
std::string WhyNoShiftedClocks();

}  // namespace assay::chaos
