#include "cli/interrupt.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/exit_codes.h"
#include "base/status.h"

namespace assay::cli {
namespace {

// All that a signal handler may touch: lock-free atomics and file descriptors.
std::atomic<bool> g_interrupted{false};
std::atomic<bool> g_graceful{false};
std::atomic<const char*> g_restore_sequence{nullptr};
std::atomic<int> g_restore_fd{-1};
int g_wake_pipe[2] = {-1, -1};  // written by the handler, so that a wait ends

void WriteRestoreSequence() {
  const char* sequence = g_restore_sequence.load();
  if (sequence == nullptr) return;
  [[maybe_unused]] const ssize_t n = ::write(g_restore_fd.load(), sequence, std::strlen(sequence));
}

void HandleSignal(int) {
  const int saved_errno = errno;
  const bool second = g_interrupted.exchange(true);
  if (!g_graceful.load() || second) {
    WriteRestoreSequence();
    ::_exit(kExitInterrupted);
  }
  [[maybe_unused]] const ssize_t n = ::write(g_wake_pipe[1], "!", 1);
  errno = saved_errno;
}

}  // namespace

void InstallInterruptHandlers() {
  ASSAY_CHECK(::pipe2(g_wake_pipe, O_CLOEXEC | O_NONBLOCK) == 0);
  struct sigaction action {};
  action.sa_handler = HandleSignal;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
}

GracefulInterrupts::GracefulInterrupts() { g_graceful = true; }
GracefulInterrupts::~GracefulInterrupts() { g_graceful = false; }

bool Interrupted() { return g_interrupted.load(); }

bool WaitForInterrupt(absl::Duration timeout) {
  struct pollfd wake {};
  wake.fd = g_wake_pipe[0];
  wake.events = POLLIN;
  if (!Interrupted()) ::poll(&wake, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout)));
  return Interrupted();
}

void SetRestoreSequence(int fd, const char* sequence) {
  g_restore_fd = fd;
  g_restore_sequence = sequence;
}

}  // namespace assay::cli
