// Commands of the agent on their way to the engine loop.
#pragma once

#include <absl/status/status.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "assay/v1/runner.pb.h"

namespace assay::worker {

// Reads frames on a thread of its own. Thread-safe.
class CommandQueue {
 public:
  explicit CommandQueue(int fd);
  // The reader may be inside read(2) until the other side closes: it is left behind, and the state
  // it works on lives until it ends.
  ~CommandQueue();
  CommandQueue(const CommandQueue&) = delete;
  CommandQueue& operator=(const CommandQueue&) = delete;

  // The next command; empty when there is none now, or none will come. With `wait`, only the
  // latter.
  std::optional<v1::RunnerCommand> Next(bool wait);

  // No command will come: the stream ended (OK) or broke (the error).
  bool ended() const;
  absl::Status status() const;

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<v1::RunnerCommand> commands;
    bool ended = false;
    absl::Status status;
  };
  static void ReadLoop(int fd, const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace assay::worker
