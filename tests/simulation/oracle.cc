// What happens, and what must follow. The comparisons with database and memory are in
// oracle_checks.cc.
#include "tests/simulation/oracle.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/status.h"
#include "coordinator/scheduler/lease_policy.h"
#include "tests/simulation/sim_disk.h"
#include "tests/simulation/workload.h"

namespace assay::simulation {

using coordinator::GrantMessage;
using coordinator::JobMessage;
using coordinator::OutgoingMessage;
using storage::InsertOutcome;
using storage::UnitId;

void Oracle::Fail(std::string what) {
  if (violation_.empty()) {
    violation_ = fmt::format("at {}: {}", absl::FormatDuration(events_->now()), what);
  }
}

std::string Oracle::Name(const UnitId& unit) {
  return fmt::format("unit (cell {}, item {}, repeat {})", unit.cell_id, unit.item_index,
                     unit.repeat);
}

bool Oracle::IsWanted(const UnitId& unit) const {
  const auto places = places_.find(unit.cell_id);
  return places != places_.end() && std::ranges::any_of(places->second, [&](const Place& place) {
           return !place.cancelled && unit.item_index < place.num_items &&
                  unit.repeat < place.num_repeats;
         });
}

const Oracle::Sample* Oracle::FindSample(const UnitId& unit) const {
  if (const auto it = batch_samples_.find(unit); it != batch_samples_.end()) return &it->second;
  if (batch_requeued_.contains(unit)) return nullptr;
  const auto it = samples_.find(unit);
  return it == samples_.end() ? nullptr : &it->second;
}

Oracle::Holder Oracle::HolderOf(const UnitId& unit) const {
  const auto it = holders_.find(unit);
  Holder holder = it == holders_.end() ? Holder{} : it->second;
  if (batch_requeued_.contains(unit)) ++holder.epoch;
  return holder;
}

bool Oracle::IsStale(const UnitId& unit, int64_t epoch) const {
  return samples_.contains(unit) || HolderOf(unit).epoch > epoch;
}

// Batches ---------------------------------------------------------------------------------------

void Oracle::OnReport(const coordinator::ReportCommand& command,
                      const absl::StatusOr<std::vector<InsertOutcome>>& outcomes, bool honest) {
  if (!outcomes.ok()) {
    if (honest && absl::IsInvalidArgument(outcomes.status())) {
      Fail("an honest report is refused: " + Message(outcomes.status()));
    }
    return;
  }
  for (size_t i = 0; i < outcomes->size(); ++i) {
    const storage::SampleRecord& sample = command.samples[i];
    const Sample record = {sample.epoch, sample.lease_id, Workload::Fingerprint(sample)};
    if (honest) {
      const auto [truth, added] = truth_.try_emplace(sample.unit, record.fingerprint);
      if (truth->second != record.fingerprint) Fail(Name(sample.unit) + " has two answers");
    }
    const Sample* const stored = FindSample(sample.unit);
    const Holder holder = HolderOf(sample.unit);
    InsertOutcome expected = InsertOutcome::kFenced;
    if (stored != nullptr && stored->epoch == sample.epoch && stored->lease_id == sample.lease_id) {
      expected = InsertOutcome::kDuplicate;
    } else if (stored == nullptr && holder.epoch == sample.epoch &&
               holder.lease_id == sample.lease_id && IsWanted(sample.unit)) {
      // A liar's is never to be stored: nobody lies about a grant that is his and current.
      expected = honest ? InsertOutcome::kAccepted : InsertOutcome::kFenced;
    }
    const InsertOutcome outcome = (*outcomes)[i];
    // Whether a unit is wanted may have changed within the batch.
    const bool can_tell = !sweeps_changed_ || outcome == InsertOutcome::kDuplicate ||
                          expected == InsertOutcome::kDuplicate;
    if (outcome != expected && can_tell) {
      Fail(fmt::format("the sample of {} under epoch {} of {} is answered {}, not {}{}",
                       Name(sample.unit), sample.epoch, sample.lease_id, static_cast<int>(outcome),
                       static_cast<int>(expected), honest ? "" : "; it is a lie"));
    }
    if (outcome == InsertOutcome::kAccepted) {
      ++num_accepted_;
      batch_samples_[sample.unit] = record;
      batch_accepted_.push_back(sample.unit);
      // It renews its lease, unless the unit had been taken off it: then it may lapse as it would.
      const auto lease = leases_.find(sample.lease_id);
      if (lease != leases_.end()) {
        const Instant until = events_->now() + options_.lease_ttl;
        lease->second.ends_by = std::max(lease->second.ends_by, until);
      }
    } else {
      ++(outcome == InsertOutcome::kDuplicate ? num_duplicates_ : num_fenced_);
    }
  }
}

void Oracle::OnHeartbeat(const coordinator::ControlPlane& plane,
                         const coordinator::HeartbeatCommand& command) {
  const coordinator::WorkerHeartbeat& heartbeat = command.heartbeat;
  for (const coordinator::UnitFailureReport& failure : command.failures) {
    const Holder holder = HolderOf(failure.unit);
    if (failure.infrastructure || holder.epoch != failure.epoch ||
        holder.lease_id != failure.lease_id) {
      continue;
    }
    failed_epochs_[failure.unit].insert(failure.epoch);
    failed_on_[failure.unit].insert(heartbeat.worker_id + "/" + heartbeat.incarnation);
  }
  const auto worker = plane.scheduler().workers().find(heartbeat.worker_id);
  if (worker == plane.scheduler().workers().end() || !worker->second.known ||
      worker->second.incarnation != heartbeat.incarnation) {
    return;
  }
  for (const coordinator::LeaseProgress& progress : heartbeat.leases) {
    const coordinator::LeaseState* const lease = plane.scheduler().FindLease(progress.lease_id);
    if (lease == nullptr || lease->worker_id != heartbeat.worker_id) {
      batch_foreign_.emplace_back(heartbeat.worker_id, progress.lease_id);
    }
  }
  if (heartbeat.num_spooled_samples == 0) batch_unlisting_.insert(heartbeat.worker_id);
  // Slots that surely advanced, for what must live, and those that may have, for what must end: a
  // lease's last sample may have ended it earlier in the batch, its last failure may be in this
  // very heartbeat, and then its tokens renew nobody.
  std::set<int32_t> advanced;
  std::set<int32_t> maybe_advanced;
  for (const coordinator::LeaseProgress& progress : heartbeat.leases) {
    const auto lease = leases_.find(progress.lease_id);
    if (lease == leases_.end() || lease->second.worker_id != heartbeat.worker_id) continue;
    if (progress.tokens_generated <= lease->second.tokens) continue;
    lease->second.tokens = progress.tokens_generated;
    maybe_advanced.insert(lease->second.slot_index);
    const bool may_end = std::ranges::any_of(command.failures, [&](const auto& failure) {
      return failure.lease_id == progress.lease_id;
    });
    if (may_end || plane.scheduler().FindLease(progress.lease_id) == nullptr) continue;
    advanced.insert(lease->second.slot_index);
  }
  const Instant now = events_->now();
  const Instant until = now + options_.lease_ttl;
  for (const coordinator::LeaseProgress& progress : heartbeat.leases) {
    const auto found = leases_.find(progress.lease_id);
    if (found == leases_.end() || found->second.worker_id != heartbeat.worker_id) continue;
    Lease& lease = found->second;
    const bool is_loading = std::ranges::any_of(heartbeat.slots, [&](const auto& slot) {
      return slot.index == lease.slot_index && slot.phase == coordinator::SlotPhase::kLoading;
    });
    if (advanced.contains(lease.slot_index) ||
        (is_loading && now - lease.granted_first < coordinator::kLongestLoad)) {
      renewals_.emplace_back(progress.lease_id, until);
    }
    if (maybe_advanced.contains(lease.slot_index) ||
        (is_loading && now - lease.granted_last < coordinator::kLongestLoad)) {
      lease.ends_by = std::max(lease.ends_by, until);
    }
  }
}

void Oracle::OnHeartbeatHandled(const absl::Status& status) {
  for (const auto& [lease_id, until] : std::exchange(renewals_, {})) {
    const auto lease = leases_.find(lease_id);
    if (!status.ok() || lease == leases_.end()) continue;
    lease->second.lives_until = std::max(lease->second.lives_until, until);
  }
}

void Oracle::OnJobReport(const coordinator::JobReport& report, const absl::Status& status) {
  const auto epoch = job_epochs_.find(report.job_id);
  if (status.ok() && epoch != job_epochs_.end() && report.epoch < epoch->second) {
    Fail(fmt::format("job {}: a report under epoch {} counts, it was granted under {} since",
                     report.job_id, report.epoch, epoch->second));
  }
}

void Oracle::OnSubmit(const std::string& request_id, int64_t sweep_row_id) {
  const auto before = submitted_.find(request_id);
  if (before != submitted_.end() && before->second != sweep_row_id) {
    Fail(fmt::format("{} made sweep {} and then sweep {}", request_id, before->second,
                     sweep_row_id));
  }
  batch_submitted_[request_id] = sweep_row_id;
}

void Oracle::OnRequeue(int64_t sample_id, const UnitId& unit) {
  const SimDisk::Truce truce;
  // Asked again, the control plane answers as before and does nothing. The reader sees the world
  // before this batch.
  const auto stored =
      reader_->QueryInteger(fmt::format("SELECT count(*) FROM sample WHERE id = {}", sample_id));
  if (!stored.ok() || *stored == 0 || batch_requeued_.contains(unit)) return;
  batch_requeued_.insert(unit);
  batch_samples_.erase(unit);
  std::erase(batch_accepted_, unit);
  sweeps_changed_ = true;
}

void Oracle::OnLost() {
  for (const auto& [unit, sample] : batch_samples_) uncertain_samples_.emplace_back(unit, sample);
  uncertain_requeues_.insert(batch_requeued_.begin(), batch_requeued_.end());
  uncertain_ = true;
  batch_samples_.clear();
  batch_requeued_.clear();
  batch_unlisting_.clear();
  batch_foreign_.clear();
  batch_accepted_.clear();
  batch_submitted_.clear();
}

void Oracle::OnCommitted(coordinator::ControlPlane& plane,
                         const std::vector<OutgoingMessage>& messages, bool ticked) {
  const SimDisk::Truce truce;
  ++num_batches_;
  const bool rows_changed = !batch_samples_.empty() || !batch_requeued_.empty();
  for (const UnitId& unit : batch_requeued_) {
    ForgetSample(unit);
    ++holders_[unit].epoch;
  }
  for (const auto& [unit, sample] : batch_samples_) samples_[unit] = sample;
  submitted_.insert(batch_submitted_.begin(), batch_submitted_.end());
  batch_submitted_.clear();
  batch_samples_.clear();
  batch_requeued_.clear();
  if (sweeps_changed_) {
    ReadSweeps();
    CheckSweepsInMemory(plane.scheduler());
  }
  TakeGrants(messages);
  CheckLeases(plane.scheduler(), ticked);
  CheckSlots(messages);
  CheckShares(plane.scheduler(), messages);
  CheckStopped(plane.scheduler(), messages);
  CheckQuarantine(plane.scheduler());
  if (const std::string wrong = plane.scheduler().CheckInvariants(); !wrong.empty()) {
    Fail("the scheduler: " + wrong);
  }
  if (rows_changed) CheckAccepted();
  if (num_batches_ % options_.full_check_interval == 0) {
    CheckRows("between batches");
    CheckUnitsInMemory(plane.scheduler());
  }
  batch_unlisting_.clear();
  batch_foreign_.clear();
  batch_accepted_.clear();
}

void Oracle::ForgetSample(const UnitId& unit) {
  const auto sample = samples_.find(unit);
  if (sample == samples_.end()) return;
  requeued_epochs_[unit] = sample->second.epoch;
  samples_.erase(sample);
  acknowledged_.erase(unit);
}

void Oracle::TakeGrants(const std::vector<OutgoingMessage>& messages) {
  const Instant now = events_->now();
  for (const OutgoingMessage& message : messages) {
    if (const auto* job = std::get_if<JobMessage>(&message.body)) {
      int64_t& epoch = job_epochs_[job->job_id];
      if (job->epoch <= epoch) Fail(fmt::format("job {} is granted twice alike", job->job_id));
      epoch = job->epoch;
      continue;
    }
    const auto* const grant = std::get_if<GrantMessage>(&message.body);
    if (grant == nullptr) continue;
    const Instant until = now + options_.lease_ttl;
    leases_[grant->lease_id] = {message.worker_id, grant->slot_index, now, now, until, until, 0};
    for (const coordinator::UnitGrant& unit : grant->units) {
      Holder& holder = holders_[unit.unit];
      if (unit.epoch <= holder.epoch) {
        Fail(fmt::format("{} is granted under epoch {} after {}", Name(unit.unit), unit.epoch,
                         holder.epoch));
      }
      holder = {unit.epoch, grant->lease_id};
      if (samples_.contains(unit.unit)) Fail(Name(unit.unit) + " is granted, and has its sample");
      quarantined_.erase(unit.unit);
    }
  }
}

void Oracle::OnAcknowledged(const coordinator::ReportCommand& command,
                            const std::vector<InsertOutcome>& outcomes) {
  for (size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i] == InsertOutcome::kFenced) continue;
    const storage::SampleRecord& sample = command.samples[i];
    const auto requeued = requeued_epochs_.find(sample.unit);
    if (requeued != requeued_epochs_.end() && requeued->second >= sample.epoch) continue;
    acknowledged_[sample.unit] = Workload::Fingerprint(sample);
  }
}

// A coordinator's life --------------------------------------------------------------------------

void Oracle::OnStop() {
  OnLost();
  reader_.reset();
  leases_.clear();
}

void Oracle::OnRebuilt() {
  const Instant now = events_->now();
  for (auto& [lease_id, lease] : leases_) {
    lease.granted_last = now;
    lease.ends_by = std::max(lease.ends_by, now + 2 * options_.lease_ttl);
  }
}

}  // namespace assay::simulation
