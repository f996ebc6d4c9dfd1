#include "tests/chaos/shifted_clock.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/status.h"

namespace assay::chaos {

absl::StatusOr<std::unique_ptr<ShiftedClock>> ShiftedClock::Create(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return Unavailable("{}: {}", path, std::strerror(errno));
  void* memory = MAP_FAILED;
  if (::ftruncate(fd, sizeof(int64_t)) == 0) {
    memory = ::mmap(nullptr, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  ::close(fd);
  if (memory == MAP_FAILED) return Unavailable("{}: cannot map: {}", path, std::strerror(errno));
  return std::unique_ptr<ShiftedClock>(
      new ShiftedClock(path, static_cast<std::atomic<int64_t>*>(memory)));
}

ShiftedClock::~ShiftedClock() { ::munmap(micros_, sizeof(int64_t)); }

std::vector<std::string> ShiftedClock::Environment() const {
#ifdef ASSAY_CLOCK_SHIM
  return {std::string("LD_PRELOAD=") + ASSAY_CLOCK_SHIM, "ASSAY_SHIFTED_CLOCK=" + path_};
#else
  return {};
#endif
}

void ShiftedClock::SetOffset(absl::Duration offset) {
  micros_->store(absl::ToInt64Microseconds(offset), std::memory_order_relaxed);
}

std::string WhyNoShiftedClocks() {
#ifdef ASSAY_CLOCK_SHIM
  return std::filesystem::exists(ASSAY_CLOCK_SHIM) ? "" : "the clock library was not built";
#else
  return "sanitizers want to be the first library of a process";
#endif
}

}  // namespace assay::chaos
