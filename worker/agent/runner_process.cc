#include "worker/agent/runner_process.h"

#include <signal.h>

#include <utility>

#include "base/status.h"
#include "worker/wire/frame.h"

namespace assay::worker {
namespace {

// A runner reads its commands on a thread of its own, whatever its engine does.
constexpr absl::Duration kSendTimeout = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::unique_ptr<RunnerProcess>> RunnerProcess::Start(const Options& options,
                                                                    Handlers handlers) {
  ASSAY_ASSIGN_OR_RETURN(
      std::unique_ptr<Subprocess> process,
      Subprocess::Start({.argv = {options.program, "serve", "--device", options.device},
                         .environment = options.environment,
                         .pipe_stdin = true,
                         .pipe_stdout = true,
                         .own_process_group = true}));
  ASSAY_RETURN_IF_ERROR(SetNonBlocking(process->stdin_fd()));
  return std::unique_ptr<RunnerProcess>(new RunnerProcess(std::move(process), std::move(handlers)));
}

RunnerProcess::RunnerProcess(std::unique_ptr<Subprocess> process, Handlers handlers)
    : process_(std::move(process)), handlers_(std::move(handlers)) {
  reader_ = std::thread([this, fd = process_->stdout_fd()] {
    while (true) {
      v1::RunnerEvent event;
      const absl::StatusOr<bool> received = ReadFrame(fd, &event);
      if (!received.ok() || !*received) {
        handlers_.on_end(received.status());
        return;
      }
      handlers_.on_event(std::move(event));
    }
  });
}

RunnerProcess::~RunnerProcess() {
  Kill();
  reader_.join();
}

absl::Status RunnerProcess::Send(const v1::RunnerCommand& command) {
  return WriteFrame(process_->stdin_fd(), command, kSendTimeout);
}

std::string RunnerProcess::Kill() {
  // One that ends by itself gets a moment, for its own exit status says more than a signal's.
  std::optional<int> status = process_->Wait(absl::ZeroDuration());
  if (!status.has_value()) {
    process_->Signal(SIGKILL);
    status = process_->Wait(absl::InfiniteDuration());
  }
  return DescribeWaitStatus(*status);
}

}  // namespace assay::worker
