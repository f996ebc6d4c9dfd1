// A library for LD_PRELOAD that steps a process's wall clock: CLOCK_REALTIME is off by as many
// microseconds as the file ASSAY_SHIFTED_CLOCK holds (eight bytes, native order), read anew at each
// call. CLOCK_MONOTONIC stays. Waits until a wall time are translated for the kernel; a step during
// such a wait is noticed when the wait has ended, which is late for steps forward.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>

namespace {

constexpr int64_t kMicrosPerSecond = 1'000'000;
constexpr int64_t kNanosPerSecond = 1'000'000'000;
// Monotonic time is the machine's uptime: no machine has been up since 2001.
constexpr time_t kFirstWallSecond = 1'000'000'000;

const std::atomic<int64_t>* MapOffset() {
  const char* path = std::getenv("ASSAY_SHIFTED_CLOCK");
  if (path == nullptr) return nullptr;
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  void* memory = ::mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  return memory == MAP_FAILED ? nullptr : static_cast<const std::atomic<int64_t>*>(memory);
}

int64_t OffsetMicros() {
  static const std::atomic<int64_t>* const offset = MapOffset();
  return offset == nullptr ? 0 : offset->load(std::memory_order_relaxed);
}

timespec Shifted(const timespec& time, int64_t micros) {
  int64_t seconds = time.tv_sec + micros / kMicrosPerSecond;
  int64_t nanos = time.tv_nsec + (micros % kMicrosPerSecond) * 1000;
  if (nanos < 0) {
    nanos += kNanosPerSecond;
    --seconds;
  } else if (nanos >= kNanosPerSecond) {
    nanos -= kNanosPerSecond;
    ++seconds;
  }
  return {static_cast<time_t>(seconds < 0 ? 0 : seconds), static_cast<long>(nanos)};
}

// The function that this library hides. `version` matters where the C library has two.
template <typename Function>
Function* Hidden(const char* name, const char* version = nullptr) {
  void* symbol = version == nullptr ? nullptr : ::dlvsym(RTLD_NEXT, name, version);
  if (symbol == nullptr) symbol = ::dlsym(RTLD_NEXT, name);
  return reinterpret_cast<Function*>(symbol);
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static auto* const hidden = Hidden<int(clockid_t, timespec*)>("clock_gettime");
  const int result = hidden(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    *time = Shifted(*time, OffsetMicros());
  }
  return result;
}

int gettimeofday(timeval* time, void* /*zone*/) noexcept {
  timespec now{};
  if (::clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  *time = {now.tv_sec, static_cast<suseconds_t>(now.tv_nsec / 1000)};
  return 0;
}

time_t time(time_t* out) noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* deadline) {
  static auto* const hidden = Hidden<int(pthread_cond_t*, pthread_mutex_t*, const timespec*)>(
      "pthread_cond_timedwait", "GLIBC_2.3.2");
  // The clock is an attribute of the condition that cannot be asked for.
  if (deadline->tv_sec < kFirstWallSecond) return hidden(condition, mutex, deadline);
  const timespec real = Shifted(*deadline, -OffsetMicros());
  return hidden(condition, mutex, &real);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* deadline) {
  static auto* const hidden =
      Hidden<int(pthread_cond_t*, pthread_mutex_t*, clockid_t, const timespec*)>(
          "pthread_cond_clockwait");
  if (clock != CLOCK_REALTIME) return hidden(condition, mutex, clock, deadline);
  const timespec real = Shifted(*deadline, -OffsetMicros());
  return hidden(condition, mutex, clock, &real);
}

// Abseil waits by futex.
long syscall(long number, ...) noexcept {
  static auto* const hidden = Hidden<long(long, ...)>("syscall");
  va_list arguments;
  va_start(arguments, number);
  long a[6];
  for (long& argument : a) argument = va_arg(arguments, long);
  va_end(arguments);
  if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) != 0 && a[3] != 0) {
    const timespec real = Shifted(*reinterpret_cast<const timespec*>(a[3]), -OffsetMicros());
    return hidden(number, a[0], a[1], a[2], reinterpret_cast<long>(&real), a[4], a[5]);
  }
  return hidden(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

}  // extern "C"
