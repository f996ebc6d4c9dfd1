#include "worker/runner/command_queue.h"

#include <utility>

#include "base/status.h"
#include "worker/wire/frame.h"

namespace assay::worker {

CommandQueue::CommandQueue(int fd)
    : state_(std::make_shared<State>()), thread_([fd, state = state_] { ReadLoop(fd, state); }) {}

CommandQueue::~CommandQueue() {
  if (ended()) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

void CommandQueue::ReadLoop(int fd, const std::shared_ptr<State>& state) {
  while (true) {
    v1::RunnerCommand command;
    const absl::StatusOr<bool> received = ReadFrame(fd, &command);
    const std::lock_guard lock(state->mutex);
    if (received.ok() && *received) {
      state->commands.push_back(std::move(command));
    } else {
      state->ended = true;
      state->status = received.status();
    }
    state->changed.notify_all();
    if (state->ended) return;
  }
}

std::optional<v1::RunnerCommand> CommandQueue::Next(bool wait) {
  std::unique_lock lock(state_->mutex);
  if (wait) {
    state_->changed.wait(lock, [this] { return state_->ended || !state_->commands.empty(); });
  }
  // An ended stream means that the agent is gone: what it asked for before matters no more.
  if (state_->ended || state_->commands.empty()) return std::nullopt;
  v1::RunnerCommand command = std::move(state_->commands.front());
  state_->commands.pop_front();
  return command;
}

bool CommandQueue::ended() const {
  const std::lock_guard lock(state_->mutex);
  return state_->ended;
}

absl::Status CommandQueue::status() const {
  const std::lock_guard lock(state_->mutex);
  return state_->status;
}

}  // namespace assay::worker
