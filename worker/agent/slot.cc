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
    last_heard_ = now;
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
  last_heard_ = options_.clock->Monotonic();
  if (std::exchange(cancel_unanswered_, false)) last_progress_ = last_heard_;
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
      return EndJob(InvalidArgument("{}", event.quantize_failed().message()),
                    event.quantize_failed().infrastructure());
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
  SendCancel(command);
}

// An empty one is none.
void Slot::SendCancel(const v1::RunnerCommand& command) {
  if (!command.has_cancel()) return;
  cancel_unanswered_ = true;
  Send(command);
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
  SendCancel(command);
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
