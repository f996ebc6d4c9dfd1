#include "worker/agent/slot.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status.h"

namespace assay::worker {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(500);
constexpr absl::Duration kShortestTick = absl::Milliseconds(1);
// A wait of one tick that took this long: the process was stopped or the machine slept, and what
// the runner said meanwhile is still in the pipe.
constexpr absl::Duration kSuspended = absl::Seconds(5);
constexpr int kMaxDeathsWithWaitingUnits = 1;

}  // namespace

Slot::Slot(Options options, SlotHost* host)
    : options_(std::move(options)),
      host_(host),
      restart_backoff_(options_.first_restart_delay, options_.longest_restart_delay),
      lanes_(options_.max_num_seqs) {
  state_.set_index(options_.index);
  state_.set_phase(v1::SlotState::PHASE_IDLE);
  state_.set_num_free_lanes(lanes_);
  thread_ = std::thread([this] { Run(); });
}

Slot::~Slot() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Slot::Enqueue(v1::Grant grant) { Post(std::move(grant)); }
void Slot::EnqueueJob(v1::JobGrant job) { Post(std::move(job)); }
void Slot::Revoke(v1::Revoke revoke) { Post(std::move(revoke)); }
void Slot::GiveBack(bool running) { Post(GiveBackOrder{running}); }

void Slot::Post(Event event) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    idle_ = false;  // until the thread has seen it
  }
  wake_.notify_all();
}

v1::SlotState Slot::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

bool Slot::idle() const {
  const std::lock_guard lock(mutex_);
  return idle_;
}

Slot::LoadKey Slot::KeyOf(const v1::Grant& grant) {
  return {grant.model().name(), grant.model().model_hash(), grant.model().artifact_key(),
          grant.model().engine_numerics_version(), grant.sampling().max_model_len()};
}

// The thread --------------------------------------------------------------------------------------

void Slot::Run() {
  while (true) {
    Advance();
    Publish();
    std::vector<Event> events = WaitForEvents();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    for (Event& event : events) Handle(event);
    CheckTimeouts();
  }
  runner_.reset();
}

std::vector<Slot::Event> Slot::WaitForEvents() {
  const absl::Duration before = options_.clock->Monotonic();
  absl::Duration timeout = kTick;
  if (runner_ == nullptr) timeout = std::clamp(restart_time_ - before, kShortestTick, kTick);
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, absl::ToChronoMilliseconds(timeout),
                 [this] { return stopping_ || !events_.empty(); });
  const absl::Duration now = options_.clock->Monotonic();
  if (now - before > kSuspended) {
    last_progress_ = now;
    busy_since_ = now;
  }
  std::vector<Event> events(std::make_move_iterator(events_.begin()),
                            std::make_move_iterator(events_.end()));
  events_.clear();
  return events;
}

void Slot::Handle(Event& event) {
  if (auto* from_runner = std::get_if<FromRunner>(&event)) {
    if (from_runner->generation == generation_ && runner_ != nullptr) {
      HandleRunnerEvent(from_runner->event);
    }
  } else if (auto* ended = std::get_if<RunnerEnded>(&event)) {
    if (ended->generation == generation_ && runner_ != nullptr) {
      LoseRunner(ended->status.ok() ? "the runner ended" : Message(ended->status));
    }
  } else if (auto* grant = std::get_if<v1::Grant>(&event)) {
    AddGrant(std::move(*grant));
  } else if (auto* job = std::get_if<v1::JobGrant>(&event)) {
    AddJob(std::move(*job));
  } else if (auto* revoke = std::get_if<v1::Revoke>(&event)) {
    DropUnits(*revoke);
  } else if (auto* give_back = std::get_if<GiveBackOrder>(&event)) {
    GiveBackUnits(give_back->running);
  }
}

void Slot::HandleRunnerEvent(v1::RunnerEvent& event) {
  switch (event.event_case()) {
    case v1::RunnerEvent::kStarted:
      host_->OnRunnerStarted(event.started().provenance());
      return;
    case v1::RunnerEvent::kLoaded:
      return OnLoaded(event.loaded());
    case v1::RunnerEvent::kLoadFailed:
      return OnLoadFailed(event.load_failed());
    case v1::RunnerEvent::kUnitDone:
      return OnUnitDone(std::move(*event.mutable_unit_done()->mutable_sample()));
    case v1::RunnerEvent::kUnitFailed:
      return OnUnitFailed(event.unit_failed());
    case v1::RunnerEvent::kProgress:
      return OnProgress(event.progress());
    case v1::RunnerEvent::kQuantized:
      return EndJob(absl::OkStatus(), false);
    case v1::RunnerEvent::kQuantizeFailed:
      return EndJob(InvalidArgument("{}", event.quantize_failed().message()), false);
    case v1::RunnerEvent::kFatal:
      return LoseRunner(event.fatal().message());
    case v1::RunnerEvent::EVENT_NOT_SET:
      return LoseRunner("the runner sent an event that this agent does not know");
  }
}

// Leases ------------------------------------------------------------------------------------------

void Slot::AddGrant(v1::Grant grant) {
  const auto shared = std::make_shared<const v1::Grant>(std::move(grant));
  std::vector<LeasedUnit> fresh;
  for (int i = 0; i < shared->units_size(); ++i) {
    const LeasedUnit leased{shared, i};
    const UnitId id = IdOf(leased.unit().key());
    // A unit that is here already was granted anew, because its lease lapsed: what is under way
    // counts for the new grant, since equal units give equal tokens.
    if (const auto it = running_.find(id); it != running_.end()) {
      it->second = leased;
      continue;
    }
    const auto same = [&id](const LeasedUnit& other) { return IdOf(other.unit().key()) == id; };
    if (const auto it = std::find_if(waiting_.begin(), waiting_.end(), same);
        it != waiting_.end()) {
      *it = leased;
      continue;
    }
    fresh.push_back(leased);
  }
  // Long ones first: the tail of a lease is what leaves lanes empty.
  std::stable_sort(fresh.begin(), fresh.end(), [](const LeasedUnit& a, const LeasedUnit& b) {
    return a.unit().expected_tokens() > b.unit().expected_tokens();
  });
  waiting_.insert(waiting_.end(), fresh.begin(), fresh.end());
}

void Slot::AddJob(v1::JobGrant job) {
  // One that is here already was granted anew: it ends under the new epoch.
  if (job_.has_value() && job_->grant.job_id() == job.job_id()) {
    job_->grant.set_epoch(job.epoch());
    return;
  }
  const auto same = [&job](const v1::JobGrant& other) { return other.job_id() == job.job_id(); };
  std::erase_if(jobs_, same);
  jobs_.push_back(std::move(job));
}

void Slot::DropUnits(const v1::Revoke& revoke) {
  const auto revoked = [&revoke](const LeasedUnit& leased) {
    if (leased.grant->lease_id() != revoke.lease_id()) return false;
    if (revoke.units().empty()) return true;
    const UnitId id = IdOf(leased.unit().key());
    return std::any_of(revoke.units().begin(), revoke.units().end(),
                       [&id](const v1::UnitKey& key) { return IdOf(key) == id; });
  };
  std::erase_if(waiting_, revoked);
  v1::RunnerCommand command;
  for (auto it = running_.begin(); it != running_.end();) {
    if (revoked(it->second)) {
      *command.mutable_cancel()->add_keys() = it->second.unit().key();
      it = running_.erase(it);
    } else {
      ++it;
    }
  }
  if (command.has_cancel()) Send(command);
}

void Slot::GiveBackUnits(bool running) {
  const std::string message = "the worker is stopping";
  for (const LeasedUnit& leased : std::exchange(waiting_, {})) Fail(leased, message, true);
  for (const v1::JobGrant& job : std::exchange(jobs_, {})) {
    host_->FinishJob(job, {}, Cancelled("{}", message), true, absl::ZeroDuration());
  }
  if (!running) return;
  v1::RunnerCommand command;
  for (const auto& [id, leased] : std::exchange(running_, {})) {
    *command.mutable_cancel()->add_keys() = leased.unit().key();
    Fail(leased, message, true);
  }
  if (command.has_cancel()) Send(command);
  if (job_.has_value()) {
    EndJob(Cancelled("{}", message), true);
    LoseRunner(message);  // a job cannot be cancelled otherwise
  }
}

void Slot::Fail(const LeasedUnit& leased, const std::string& message, bool infrastructure) {
  v1::UnitFailure failure;
  failure.set_lease_id(leased.grant->lease_id());
  *failure.mutable_unit() = leased.unit().key();
  failure.set_epoch(leased.unit().epoch());
  failure.set_message(message);
  failure.set_infrastructure(infrastructure);
  host_->OnFailure(std::move(failure));
}

void Slot::FailWaiting(const LoadKey& key, const std::string& message, bool infrastructure) {
  std::erase_if(waiting_, [&](const LeasedUnit& leased) {
    if (KeyOf(*leased.grant) != key) return false;
    Fail(leased, message, infrastructure);
    return true;
  });
}

// Events of the runner ----------------------------------------------------------------------------

void Slot::OnLoaded(const v1::Loaded& loaded) {
  if (!loading_.has_value()) return;
  spdlog::info("slot {}: loaded {} {} in {:.1f} s", options_.index, loading_->name,
               loading_->artifact_key.substr(0, 12),
               static_cast<double>(loaded.duration_us()) / 1e6);
  loaded_ = std::exchange(loading_, std::nullopt);
  lanes_ = std::max(loaded.max_num_seqs(), 1);
  memory_used_bytes_ = loaded.memory_bytes();
  last_tokens_ = 0;
}

void Slot::OnLoadFailed(const v1::LoadFailed& failed) {
  if (!loading_.has_value()) return;
  const LoadKey key = *std::exchange(loading_, std::nullopt);
  spdlog::error("slot {}: cannot load {}: {}", options_.index, key.name, failed.message());
  FailWaiting(key, failed.message(), failed.out_of_memory());
}

void Slot::OnUnitDone(v1::Sample sample) {
  const auto it = running_.find(IdOf(sample.unit()));
  if (it == running_.end()) return;  // revoked meanwhile
  const LeasedUnit leased = it->second;
  running_.erase(it);
  deaths_in_a_row_ = 0;
  restart_backoff_.Reset();
  last_progress_ = options_.clock->Monotonic();
  // What the coordinator granted is what is reported, whatever the runner says.
  sample.set_lease_id(leased.grant->lease_id());
  sample.set_epoch(leased.unit().epoch());
  host_->OnTokens(leased.grant->lease_id(), leased.unit().key(), sample.completion_tokens());
  host_->OnSample(std::move(sample), leased.grant->grader(), leased.unit().gold());
}

void Slot::OnUnitFailed(const v1::UnitFailed& failed) {
  const auto it = running_.find(IdOf(failed.key()));
  if (it == running_.end()) return;
  Fail(it->second, failed.message(), false);
  running_.erase(it);
}

void Slot::OnProgress(const v1::EngineProgress& progress) {
  if (progress.tokens_generated() > last_tokens_) {
    last_tokens_ = progress.tokens_generated();
    last_progress_ = options_.clock->Monotonic();
  }
  tokens_per_s_ = progress.tokens_per_s();
  memory_used_bytes_ = progress.memory_used_bytes();
  for (const v1::UnitProgress& unit : progress.units()) {
    const auto it = running_.find(IdOf(unit.key()));
    if (it == running_.end()) continue;
    host_->OnTokens(it->second.grant->lease_id(), unit.key(), unit.tokens_generated());
  }
}

void Slot::EndJob(absl::Status status, bool infrastructure) {
  if (!job_.has_value()) return;
  const RunningJob job = *std::exchange(job_, std::nullopt);
  host_->FinishJob(job.grant, job.folders, std::move(status), infrastructure,
                   options_.clock->Monotonic() - job.start);
}

// What can be done now ----------------------------------------------------------------------------

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
  const absl::StatusOr<std::string> model_dir = host_->FindModel(grant->model());
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
  if (running_.empty()) last_progress_ = options_.clock->Monotonic();
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
  } else if (!running_.empty() && now - last_progress_ > options_.stuck_timeout) {
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

void Slot::Publish() {
  v1::SlotState state;
  state.set_index(options_.index);
  if (runner_ == nullptr) {
    // A slot whose first runner is being started is as good as idle.
    state.set_phase(deaths_in_a_row_ > 0 ? v1::SlotState::PHASE_RESTARTING
                                         : v1::SlotState::PHASE_IDLE);
  } else if (loading_.has_value()) {
    state.set_phase(v1::SlotState::PHASE_LOADING);
  } else if (job_.has_value() || !jobs_.empty()) {
    state.set_phase(v1::SlotState::PHASE_QUANTIZING);
  } else {
    state.set_phase(loaded_.has_value() ? v1::SlotState::PHASE_RUNNING : v1::SlotState::PHASE_IDLE);
  }
  if (loaded_.has_value()) state.set_loaded_artifact_key(loaded_->artifact_key);
  const auto num_running = static_cast<int32_t>(running_.size());
  const auto num_waiting = static_cast<int32_t>(waiting_.size());
  state.set_num_running_units(num_running);
  state.set_num_waiting_units(num_waiting);
  state.set_num_free_lanes(std::max(0, lanes_ - num_running - num_waiting));
  state.set_tokens_per_s(num_running > 0 ? tokens_per_s_ : 0);
  state.set_memory_used_bytes(memory_used_bytes_);
  bool changed = false;
  {
    const std::lock_guard lock(mutex_);
    changed = state.phase() != state_.phase() ||
              state.num_running_units() != state_.num_running_units() ||
              state.num_waiting_units() != state_.num_waiting_units();
    state_ = std::move(state);
    idle_ = events_.empty() && waiting_.empty() && running_.empty() && jobs_.empty() &&
            !job_.has_value();
  }
  if (changed) host_->OnChange();
}

}  // namespace assay::worker
