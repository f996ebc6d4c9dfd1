// Ctrl-C. Most commands hold nothing that needs care: a signal puts the terminal back and ends the
// program at once with exit code 130. A command that must clean up (the demo and its processes)
// holds a GracefulInterrupts and looks at the flag; a second signal ends the program even then.
//
// SIGINT, SIGTERM and SIGHUP are treated alike. The functions are thread-safe.
#pragma once

#include <absl/time/time.h>

namespace assay::cli {

// Call once, at the start of main.
void InstallInterruptHandlers();

// While an object lives, the first signal only sets the flag. At most one at a time.
class GracefulInterrupts {
 public:
  GracefulInterrupts();
  ~GracefulInterrupts();
  GracefulInterrupts(const GracefulInterrupts&) = delete;
  GracefulInterrupts& operator=(const GracefulInterrupts&) = delete;
};

// Whether a signal has arrived.
bool Interrupted();

// Sleeps until a signal arrives or `timeout` passes; true when a signal has arrived.
bool WaitForInterrupt(absl::Duration timeout);

// What the handler writes to `fd` before it ends the program: the sequence that gives a redrawn
// terminal back. `sequence` is a literal; nullptr for nothing.
void SetRestoreSequence(int fd, const char* sequence);

}  // namespace assay::cli
