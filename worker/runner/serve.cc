#include "worker/runner/serve.h"

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "assay/v1/runner.pb.h"
#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/log.h"
#include "base/status.h"
#include "worker/runner/command_queue.h"
#include "worker/runner/model_session.h"
#include "worker/runner/provenance.h"
#include "worker/runner/quantize_model.h"
#include "worker/wire/frame.h"
#include "worker/wire/utf8.h"

namespace assay::worker {
namespace {

constexpr int kProtocolRevision = 1;
constexpr absl::Duration kProgressInterval = absl::Milliseconds(500);

// Whether another machine, or this one later, could load the same files.
bool IsPlacementError(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:   // memory
    case absl::StatusCode::kUnavailable:         // the disk
    case absl::StatusCode::kFailedPrecondition:  // another version of the engine
      return true;
    default:
      return false;
  }
}

// Says every now and then that this process lives, while the loop is in work that says nothing.
class Pulse {
 public:
  explicit Pulse(std::function<void()> beat) {
    thread_ = std::thread([this, beat = std::move(beat)] {
      std::unique_lock lock(mutex_);
      while (!ended_.wait_for(lock, absl::ToChronoMilliseconds(kProgressInterval),
                              [this] { return stopping_; })) {
        beat();
      }
    });
  }
  ~Pulse() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    ended_.notify_all();
    thread_.join();
  }
  Pulse(const Pulse&) = delete;
  Pulse& operator=(const Pulse&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool stopping_ = false;
  std::thread thread_;
};

class RunnerLoop {
 public:
  RunnerLoop(int in_fd, int out_fd, std::string device)
      : out_fd_(out_fd), device_(std::move(device)), commands_(in_fd) {}

  int Run() {
    absl::Status status = SendStarted();
    while (status.ok()) {
      const bool busy = session_ != nullptr && !session_->idle();
      std::optional<v1::RunnerCommand> command = commands_.Next(/*wait=*/!busy);
      if (command.has_value()) {
        status = Handle(*command);
      } else if (commands_.ended()) {
        status = commands_.status();
        if (status.ok()) return kExitOk;
      } else {
        status = StepAndReport();
      }
    }
    spdlog::error("fatal: {}", Message(status));
    v1::RunnerEvent event;
    event.mutable_fatal()->set_message(ValidUtf8(Message(status)));
    // The agent may be the reason why this ends, and gone.
    (void)WriteFrame(out_fd_, event, absl::Seconds(5));
    return kExitFailure;
  }

 private:
  absl::Status Send(const v1::RunnerEvent& event) {
    const std::lock_guard lock(send_mutex_);
    return WriteFrame(out_fd_, event);
  }

  absl::Status SendStarted() {
    v1::RunnerEvent event;
    *event.mutable_started()->mutable_provenance() = MakeProvenance(device_, 1);
    event.mutable_started()->set_protocol_revision(kProtocolRevision);
    return Send(event);
  }

  absl::Status Handle(const v1::RunnerCommand& command) {
    switch (command.command_case()) {
      case v1::RunnerCommand::kLoad:
        return Load(command.load());
      case v1::RunnerCommand::kSubmit:
        return Submit(command.submit());
      case v1::RunnerCommand::kCancel:
        if (session_ == nullptr) return absl::OkStatus();
        session_->Cancel(command.cancel());
        return SendProgress();  // the agent takes one that says nothing now for stuck
      case v1::RunnerCommand::kQuantize:
        return Quantize(command.quantize());
      case v1::RunnerCommand::COMMAND_NOT_SET:
        return DataLoss("a command that this runner does not know: update the runner");
    }
    return absl::OkStatus();
  }

  absl::Status Load(const v1::LoadModel& command) {
    const absl::Duration start = clock_->Monotonic();
    session_.reset();  // the memory of the old model is needed for the new one
    absl::StatusOr<std::unique_ptr<ModelSession>> session = ModelSession::Load(command, device_);
    v1::RunnerEvent event;
    // The device failed, and with it this process's hold on it: the next one may have better luck.
    if (session.status().code() == absl::StatusCode::kInternal) return session.status();
    if (!session.ok()) {
      spdlog::error("cannot load {}: {}", command.model_dir(), Message(session.status()));
      v1::LoadFailed* failed = event.mutable_load_failed();
      failed->set_request_id(command.request_id());
      failed->set_message(ValidUtf8(Message(session.status())));
      failed->set_out_of_memory(IsPlacementError(session.status()));
      return Send(event);
    }
    session_ = *std::move(session);
    v1::Loaded* loaded = event.mutable_loaded();
    loaded->set_request_id(command.request_id());
    loaded->set_max_num_seqs(session_->max_num_seqs());
    loaded->set_memory_bytes(session_->engine().stats().memory_bytes);
    loaded->set_max_model_len(session_->engine().max_model_len());
    loaded->set_duration_us(absl::ToInt64Microseconds(clock_->Monotonic() - start));
    return Send(event);
  }

  absl::Status Submit(const v1::SubmitUnits& command) {
    if (session_ == nullptr) {
      for (const v1::RunnerUnit& unit : command.units()) {
        v1::RunnerEvent event;
        *event.mutable_unit_failed()->mutable_key() = unit.key();
        event.mutable_unit_failed()->set_message("no model is loaded");
        ASSAY_RETURN_IF_ERROR(Send(event));
      }
      return absl::OkStatus();
    }
    for (v1::UnitFailed& failure : session_->Submit(command)) {
      v1::RunnerEvent event;
      failure.set_message(ValidUtf8(failure.message()));
      *event.mutable_unit_failed() = std::move(failure);
      ASSAY_RETURN_IF_ERROR(Send(event));
    }
    return absl::OkStatus();
  }

  absl::Status StepAndReport() {
    ASSAY_ASSIGN_OR_RETURN(std::vector<v1::Sample> samples, session_->Step());
    for (v1::Sample& sample : samples) {
      v1::RunnerEvent event;
      *event.mutable_unit_done()->mutable_sample() = std::move(sample);
      ASSAY_RETURN_IF_ERROR(Send(event));
    }
    const absl::Duration now = clock_->Monotonic();
    if (now - last_progress_ < kProgressInterval && !session_->idle()) return absl::OkStatus();
    return SendProgress();
  }

  absl::Status SendProgress() {
    last_progress_ = clock_->Monotonic();
    v1::RunnerEvent event;
    *event.mutable_progress() = session_->Progress();
    return Send(event);
  }

  absl::Status Quantize(const v1::QuantizeModel& command) {
    const absl::Duration start = clock_->Monotonic();
    session_.reset();
    const absl::Status status = [&] {
      const Pulse pulse([this] {
        v1::RunnerEvent alive;
        alive.mutable_progress();
        (void)Send(alive);
      });
      return QuantizeModelFolder({.model_dir = command.model_dir(),
                                  .output_dir = command.output_dir(),
                                  .method = ToMethodSpec(command.method()),
                                  .calibration_jsonl = command.calibration_jsonl(),
                                  .calibration_name = command.method().calibration_set(),
                                  .artifact_key = command.artifact_key(),
                                  .num_threads = std::max(command.num_threads(), 1)});
    }();
    v1::RunnerEvent event;
    if (status.ok()) {
      event.mutable_quantized()->set_request_id(command.request_id());
      event.mutable_quantized()->set_duration_us(
          absl::ToInt64Microseconds(clock_->Monotonic() - start));
    } else {
      spdlog::error("cannot quantize {}: {}", command.model_dir(), Message(status));
      event.mutable_quantize_failed()->set_request_id(command.request_id());
      event.mutable_quantize_failed()->set_message(ValidUtf8(Message(status)));
      event.mutable_quantize_failed()->set_infrastructure(IsPlacementError(status));
    }
    return Send(event);
  }

  const Clock* const clock_ = RealClock::Get();
  const int out_fd_;
  const std::string device_;
  std::mutex send_mutex_;
  CommandQueue commands_;
  std::unique_ptr<ModelSession> session_;
  absl::Duration last_progress_;
};

}  // namespace

int ServeRunner(int in_fd, int out_fd, const std::string& device) {
  return RunnerLoop(in_fd, out_fd, device).Run();
}

}  // namespace assay::worker
