// What a slot does by itself: starting and losing runners, loading, submitting, timeouts.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "worker/agent/slot.h"

namespace assay::worker {
namespace {

// Waiting units stay for the next runner unless that one died too.
constexpr int kMaxDeathsWithWaitingUnits = 1;

}  // namespace

void Slot::Advance() {
  if (runner_ == nullptr) {
    if (options_.clock->Monotonic() < restart_time_) return;
    StartRunner();
    if (runner_ == nullptr) return;
  }
  if (loading_.has_value() || job_.has_value()) return;
  if (!jobs_.empty()) {
    if (running_.empty()) StartJob();
    return;
  }
  while (!waiting_.empty()) {
    const LoadKey key = KeyOf(*waiting_.front().grant);
    if (loaded_ == key) return SubmitUnits();
    if (!running_.empty() || StartLoad(key)) return;
  }
}

void Slot::StartRunner() {
  const int64_t generation = ++generation_;
  absl::StatusOr<std::unique_ptr<RunnerProcess>> runner =
      RunnerProcess::Start(options_.runner, {.on_event =
                                                 [this, generation](v1::RunnerEvent event) {
                                                   Post(FromRunner{generation, std::move(event)});
                                                 },
                                             .on_end =
                                                 [this, generation](absl::Status status) {
                                                   Post(RunnerEnded{generation, std::move(status)});
                                                 }});
  if (!runner.ok()) {
    LoseRunner(Message(runner.status()));
    return;
  }
  runner_ = *std::move(runner);
}

bool Slot::StartLoad(const LoadKey& key) {
  loaded_.reset();
  loading_ = key;
  busy_since_ = options_.clock->Monotonic();
  Publish();
  const std::shared_ptr<const v1::Grant> grant = waiting_.front().grant;
  const absl::StatusOr<std::string> model_dir = host_->FindModel(options_.index, grant->model());
  if (!model_dir.ok()) {
    spdlog::error("slot {}: {}", options_.index, Message(model_dir.status()));
    loading_.reset();
    FailWaiting(key, Message(model_dir.status()), true);
    return false;
  }
  busy_since_ = options_.clock->Monotonic();
  v1::RunnerCommand command;
  v1::LoadModel* load = command.mutable_load();
  load->set_model_dir(*model_dir);
  load->set_engine_numerics_version(key.numerics_version);
  load->set_max_model_len(key.max_model_len);
  load->set_memory_bytes(options_.memory_bytes);
  load->set_num_threads(options_.num_threads);
  load->set_max_num_seqs(options_.max_num_seqs);
  Send(command);
  return true;
}

void Slot::StartJob() {
  RunningJob job;
  job.grant = std::move(jobs_.front());
  jobs_.pop_front();
  job.start = options_.clock->Monotonic();
  job_ = job;
  Publish();
  absl::StatusOr<JobFolders> folders = host_->PrepareJob(job.grant);
  if (!folders.ok()) return EndJob(folders.status(), true);
  job_->folders = *std::move(folders);
  if (job_->folders.is_made) return EndJob(absl::OkStatus(), false);
  loaded_.reset();  // the runner unloads it for the job
  busy_since_ = options_.clock->Monotonic();
  last_heard_ = busy_since_;
  v1::RunnerCommand command;
  v1::QuantizeModel* quantize = command.mutable_quantize();
  quantize->set_request_id(job.grant.job_id());
  quantize->set_model_dir(job_->folders.model_dir);
  quantize->set_output_dir(job_->folders.output_dir);
  *quantize->mutable_method() = job.grant.quantize().model().method();
  quantize->set_calibration_jsonl(job.grant.quantize().calibration_jsonl());
  quantize->set_num_threads(options_.num_threads);
  quantize->set_artifact_key(job.grant.quantize().model().artifact_key());
  Send(command);
}

void Slot::SubmitUnits() {
  if (running_.empty() && !cancel_unanswered_) last_progress_ = options_.clock->Monotonic();
  // One command per grant: its units share their settings.
  while (!waiting_.empty() && std::ssize(running_) < lanes_ + Lookahead()) {
    const std::shared_ptr<const v1::Grant> grant = waiting_.front().grant;
    if (KeyOf(*grant) != *loaded_) return;
    v1::RunnerCommand command;
    v1::SubmitUnits* submit = command.mutable_submit();
    *submit->mutable_sampling() = grant->sampling();
    *submit->mutable_budget_forcing() = grant->budget_forcing();
    while (!waiting_.empty() && waiting_.front().grant == grant &&
           std::ssize(running_) < lanes_ + Lookahead()) {
      const v1::Unit& unit = waiting_.front().unit();
      v1::RunnerUnit* out = submit->add_units();
      *out->mutable_key() = unit.key();
      out->set_epoch(unit.epoch());
      out->set_seed(unit.seed());
      out->set_user_text(unit.user_text());
      out->set_expected_tokens(unit.expected_tokens());
      running_[IdOf(unit.key())] = waiting_.front();
      waiting_.pop_front();
    }
    Send(command);
    if (runner_ == nullptr) return;
  }
}

void Slot::Send(const v1::RunnerCommand& command) {
  if (runner_ == nullptr) return;
  const absl::Status sent = runner_->Send(command);
  if (!sent.ok()) LoseRunner(fmt::format("takes no commands: {}", Message(sent)));
}

void Slot::CheckTimeouts() {
  if (runner_ == nullptr) return;
  const absl::Duration now = options_.clock->Monotonic();
  if (loading_.has_value() && now - busy_since_ > options_.load_timeout) {
    LoseRunner(fmt::format("has been loading for {}", absl::FormatDuration(now - busy_since_)));
  } else if (job_.has_value() && now - busy_since_ > options_.quantize_timeout) {
    LoseRunner(fmt::format("has been quantizing for {}", absl::FormatDuration(now - busy_since_)));
  } else if (job_.has_value() && now - last_heard_ > options_.stuck_timeout) {
    LoseRunner(fmt::format("has said nothing for {} while quantizing",
                           absl::FormatDuration(now - last_heard_)));
  } else if ((!running_.empty() || cancel_unanswered_) &&
             now - last_progress_ > options_.stuck_timeout) {
    LoseRunner(
        fmt::format("has generated no token for {}", absl::FormatDuration(now - last_progress_)));
  }
}

void Slot::LoseRunner(const std::string& why) {
  std::string message = "runner: " + why;
  if (runner_ != nullptr) message += ", " + runner_->Kill();
  runner_.reset();
  ++deaths_in_a_row_;
  restart_time_ = options_.clock->Monotonic() + restart_backoff_.Next();
  spdlog::error("slot {}: {}; {} units were running", options_.index, message, running_.size());
  loaded_.reset();
  cancel_unanswered_ = false;
  tokens_per_s_ = 0;
  memory_used_bytes_ = 0;
  for (const auto& [id, leased] : std::exchange(running_, {})) Fail(leased, message, false);
  if (const std::optional<LoadKey> key = std::exchange(loading_, std::nullopt)) {
    FailWaiting(*key, message, true);
  }
  if (deaths_in_a_row_ > kMaxDeathsWithWaitingUnits) {
    for (const LeasedUnit& leased : std::exchange(waiting_, {})) Fail(leased, message, true);
  }
  Publish();
  EndJob(Unavailable("{}", message), true);
}

}  // namespace assay::worker
