// A child process with its own pipes: how the agent runs runners and graders, and the demo runs the
// whole system.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace assay {

// Not thread-safe, except that reading and writing the pipes may happen on different threads from
// Kill. The destructor kills the child if it still runs, and reaps it.
class Subprocess {
 public:
  struct Options {
    std::vector<std::string> argv;         // argv[0] is looked up in PATH unless it has a slash
    std::vector<std::string> environment;  // "NAME=value", added to or replacing the parent's
    bool pipe_stdin = false;
    bool pipe_stdout = false;
    std::string stderr_path;  // appended to; empty inherits the parent's
    std::string stdout_path;  // likewise; ignored with pipe_stdout
    // SIGKILL when the parent ends: no orphans after kill -9. The kernel means the thread that
    // called Start, so that thread must live as long as the child should.
    bool die_with_parent = true;
    bool own_process_group = false;  // a Ctrl-C at the terminal does not reach it
  };

  // UNAVAILABLE or NOT_FOUND naming the program when it cannot be started.
  static absl::StatusOr<std::unique_ptr<Subprocess>> Start(Options options);

  ~Subprocess();
  Subprocess(const Subprocess&) = delete;
  Subprocess& operator=(const Subprocess&) = delete;

  pid_t pid() const { return pid_; }
  int stdin_fd() const { return stdin_fd_; }    // -1 without a pipe
  int stdout_fd() const { return stdout_fd_; }  // -1 without a pipe
  void CloseStdin();

  // True until the child has been reaped.
  bool running();

  // The wait status once the child has ended, reaping it; empty while it runs. Waits at most
  // `timeout`.
  std::optional<int> Wait(absl::Duration timeout);

  void Signal(int signal_number);

  // SIGTERM, then SIGKILL after `grace`; reaps.
  void Stop(absl::Duration grace);

 private:
  Subprocess(pid_t pid, int stdin_fd, int stdout_fd)
      : pid_(pid), stdin_fd_(stdin_fd), stdout_fd_(stdout_fd) {}

  const pid_t pid_;
  int stdin_fd_;
  int stdout_fd_;
  std::optional<int> wait_status_;
};

// "exit status 3" or "signal 9 (Killed)".
std::string DescribeWaitStatus(int wait_status);

}  // namespace assay
