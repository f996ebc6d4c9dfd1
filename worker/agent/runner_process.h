// One runner: the child process, its commands and its events.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "assay/v1/runner.pb.h"
#include "base/subprocess.h"

namespace assay::worker {

// Start, Send, Kill and the destructor belong to one thread; it must live as long as the runner,
// for a child dies with the thread that forked it. Events come on a thread of this class.
class RunnerProcess {
 public:
  // `on_event` gets every event; `on_end` is called once, as the last call: OK when the stream
  // ended between frames, DATA_LOSS when it spoke garbage. Both must not wait for the owner.
  struct Handlers {
    std::function<void(v1::RunnerEvent)> on_event;
    std::function<void(absl::Status)> on_end;
  };

  struct Options {
    std::string program;
    std::string device = "cpu";            // `serve --device`
    std::vector<std::string> environment;  // "NAME=value", added to the agent's
  };

  static absl::StatusOr<std::unique_ptr<RunnerProcess>> Start(const Options& options,
                                                              Handlers handlers);

  // Kills the process if it still runs.
  ~RunnerProcess();
  RunnerProcess(const RunnerProcess&) = delete;
  RunnerProcess& operator=(const RunnerProcess&) = delete;

  // UNAVAILABLE or DEADLINE_EXCEEDED when it is dead or does not take commands: kill it.
  absl::Status Send(const v1::RunnerCommand& command);

  // SIGKILL; on_end follows. Returns how the process ended, by this or before it.
  std::string Kill();

  pid_t pid() const { return process_->pid(); }

 private:
  RunnerProcess(std::unique_ptr<Subprocess> process, Handlers handlers);

  const std::unique_ptr<Subprocess> process_;
  const Handlers handlers_;
  std::thread reader_;
};

}  // namespace assay::worker
