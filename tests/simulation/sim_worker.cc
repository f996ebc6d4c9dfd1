#include "tests/simulation/sim_worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace assay::simulation {

using coordinator::SlotPhase;
using storage::InsertOutcome;
using storage::UnitId;

namespace {

constexpr int kNumLanes = 2;
constexpr size_t kMaxReported = 8;
constexpr absl::Duration kCallTimeout = absl::Minutes(5);

// What a slot must have loaded for the cell.
std::string LoadOf(const coordinator::CellContext& cell) {
  return cell.artifact ? cell.artifact->key : cell.model.name;
}

}  // namespace

SimWorker::SimWorker(EventQueue* events, WorkerWire* wire, const Workload* workload,
                     WorkerCounts* counts, uint64_t seed, Options options)
    : events_(events),
      wire_(wire),
      workload_(workload),
      counts_(counts),
      random_(seed),
      options_(std::move(options)) {}

// Life ------------------------------------------------------------------------------------------

void SimWorker::Start() {
  ++counts_->starts;
  alive_ = true;
  ++life_;
  incarnation_ = fmt::format("{}-{}", options_.worker_id, life_);
  stalled_until_ = events_->now();
  connected_ = false;
  draining_ = false;
  slots_.assign(options_.slots.size(), Slot{});
  leases_.clear();
  failures_.clear();
  reporting_ = false;
  report_scheduled_ = false;
  BeatForEver();
  ReportSoon(absl::Seconds(10));
}

void SimWorker::Exit(absl::Duration start_again_after) {
  alive_ = false;
  const int64_t life = ++life_;
  events_->After(start_again_after, [this, life] {
    if (life == life_) Start();
  });
}

void SimWorker::Crash() {
  if (!alive_) return;
  ++counts_->crashes;
  if (!spool_.empty() && random_.Chance(faults_.lost_spool)) spool_.pop_back();
  Exit(random_.Between(absl::Seconds(10), absl::Minutes(40)));
}

void SimWorker::Stall(absl::Duration length) {
  ++counts_->stalls;
  stalled_until_ = std::max(stalled_until_, events_->now() + length);
}

void SimWorker::Later(absl::Duration delay, std::function<void()> work) {
  events_->After(delay, [this, life = life_, work = std::move(work)] {
    if (life != life_) return;
    if (events_->now() < stalled_until_) {
      Later(stalled_until_ - events_->now(), work);
    } else {
      work();
    }
  });
}

// The stream ------------------------------------------------------------------------------------

void SimWorker::Connect() {
  ++stream_;
  coordinator::HelloCommand command;
  command.hello.worker_id = options_.worker_id;
  command.hello.incarnation = incarnation_;
  command.hello.version = "1";
  for (const coordinator::SlotShape& shape : options_.slots) {
    command.hello.slots.push_back({.index = static_cast<int32_t>(command.hello.slots.size()),
                                   .tensor_parallel_size = shape.tensor_parallel_size,
                                   .memory_bytes = shape.memory_bytes,
                                   .is_cpu = shape.is_cpu,
                                   .numerics_version = shape.numerics_version});
  }
  command.provenance.hostname = options_.worker_id;
  wire_->SendHello(command, stream_);
}

void SimWorker::BeatForEver() {
  if (connected_) {
    Beat();
  } else {
    Connect();
  }
  ReportSoon(absl::ZeroDuration());
  Later(options_.heartbeat_interval, [this] { BeatForEver(); });
  ExitIfDrained();  // its last job may have ended without a word from the coordinator
}

void SimWorker::OnStreamBroken(int64_t stream) {
  if (!alive_ || stream != stream_) return;
  connected_ = false;
}

void SimWorker::Beat() {
  coordinator::HeartbeatCommand command;
  command.heartbeat.worker_id = options_.worker_id;
  command.heartbeat.incarnation = incarnation_;
  command.heartbeat.draining = draining_;
  command.heartbeat.num_spooled_samples = static_cast<int32_t>(spool_.size());
  command.sequence = ++sequence_;
  for (size_t i = 0; i < slots_.size(); ++i) {
    coordinator::SlotStatus status;
    status.index = static_cast<int32_t>(i);
    status.phase = slots_[i].phase;
    for (const Lease& lease : leases_) {
      if (lease.slot_index != status.index) continue;
      for (const auto& [id, unit] : lease.units) {
        status.num_running += unit.state == Unit::State::kRunning ? 1 : 0;
        status.num_waiting += unit.state == Unit::State::kWaiting ? 1 : 0;
      }
    }
    status.num_free_lanes = std::max(0, kNumLanes - status.num_running);
    command.heartbeat.slots.push_back(std::move(status));
  }
  for (const Lease& lease : leases_) {
    command.heartbeat.leases.push_back({lease.lease_id, Progress(lease)});
  }
  for (auto& [first_sent, failure] : failures_) {
    if (first_sent == 0) first_sent = sequence_;
    command.failures.push_back(failure);
  }
  wire_->SendHeartbeat(command, stream_);
}

int64_t SimWorker::Progress(const Lease& lease) const {
  int64_t tokens = lease.settled_tokens;
  for (const auto& [id, unit] : lease.units) {
    if (unit.state == Unit::State::kEnded) tokens += unit.num_tokens;
    if (unit.state != Unit::State::kRunning) continue;
    const double done =
        std::min(1.0, absl::FDivDuration(events_->now() - unit.started, unit.length));
    tokens += static_cast<int64_t>(done * static_cast<double>(unit.num_tokens));
  }
  return tokens;
}

void SimWorker::Receive(const std::string& incarnation,
                        const coordinator::OutgoingMessage& message) {
  if (!alive_ || incarnation != incarnation_) return;
  if (events_->now() < stalled_until_) {
    Later(stalled_until_ - events_->now(),
          [this, incarnation, message] { Receive(incarnation, message); });
    return;
  }
  if (std::holds_alternative<coordinator::WelcomeMessage>(message.body)) {
    if (!std::exchange(connected_, true)) Beat();
  } else if (const auto* grant = std::get_if<coordinator::GrantMessage>(&message.body)) {
    OnGrant(*grant);
  } else if (const auto* job = std::get_if<coordinator::JobMessage>(&message.body)) {
    OnJob(*job);
  } else if (const auto* revoke = std::get_if<coordinator::RevokeMessage>(&message.body)) {
    OnRevoke(*revoke);
  } else if (const auto* ack = std::get_if<coordinator::AcknowledgeMessage>(&message.body)) {
    OnAcknowledge(ack->sequence);
  } else if (std::holds_alternative<coordinator::DrainMessage>(message.body)) {
    Drain();
  } else {
    Exit(random_.Between(absl::Minutes(1), absl::Minutes(30)));  // told to shut down
  }
}

void SimWorker::Drain() {
  draining_ = true;
  ExitIfDrained();
}

void SimWorker::ExitIfDrained() {
  const bool has_jobs =
      std::ranges::any_of(slots_, [](const Slot& slot) { return slot.job_id != 0; });
  if (draining_ && leases_.empty() && spool_.empty() && failures_.empty() && !has_jobs) {
    Exit(random_.Between(absl::Minutes(5), absl::Hours(2)));
  }
}

// Leases ----------------------------------------------------------------------------------------

SimWorker::Lease* SimWorker::FindLease(const std::string& lease_id) {
  const auto it = std::ranges::find(leases_, lease_id, &Lease::lease_id);
  return it == leases_.end() ? nullptr : &*it;
}

void SimWorker::OnGrant(const coordinator::GrantMessage& grant) {
  if (FindLease(grant.lease_id) != nullptr) return;  // a repeated grant
  Lease& lease = leases_.emplace_back();
  lease.lease_id = grant.lease_id;
  lease.slot_index = grant.slot_index;
  lease.cell = grant.cell;
  for (const coordinator::UnitGrant& unit : grant.units) lease.units[unit.unit].grant = unit;
  FillSlot(grant.slot_index);
}

void SimWorker::FillSlot(int32_t slot_index) {
  Slot& slot = SlotAt(slot_index);
  if (slot.phase != SlotPhase::kIdle && slot.phase != SlotPhase::kRunning) return;
  int num_running = 0;
  for (const Lease& lease : leases_) {
    if (lease.slot_index != slot_index) continue;
    for (const auto& [id, unit] : lease.units) {
      num_running += unit.state == Unit::State::kRunning || unit.state == Unit::State::kHanging;
    }
  }
  for (Lease& lease : leases_) {
    if (lease.slot_index != slot_index) continue;
    for (auto& [id, unit] : lease.units) {
      if (unit.state != Unit::State::kWaiting) continue;
      if (num_running >= kNumLanes) return;
      if (slot.loaded != LoadOf(*lease.cell)) {
        if (num_running > 0) return;
        slot.phase = SlotPhase::kLoading;
        slot.loaded = LoadOf(*lease.cell);
        Later(random_.Between(absl::Seconds(20), absl::Minutes(12)),
              [this, slot_index, runner = ++slot.runner] {
                if (SlotAt(slot_index).runner != runner) return;
                SlotAt(slot_index).phase = SlotPhase::kRunning;
                FillSlot(slot_index);
              });
        return;
      }
      StartUnit(slot_index, &lease, &unit);
      ++num_running;
    }
  }
}

void SimWorker::StartUnit(int32_t slot_index, Lease* lease, Unit* unit) {
  unit->state = Unit::State::kRunning;
  unit->started = events_->now();
  unit->num_tokens = Workload::MakeSample(*lease->cell, unit->grant).completion_tokens;
  unit->length = random_.Between(absl::Minutes(3), absl::Minutes(90));
  if (random_.Chance(faults_.hang)) {
    ++counts_->hangs;
    unit->state = Unit::State::kHanging;
    return;
  }
  Later(unit->length, [this, slot_index, runner = SlotAt(slot_index).runner,
                       lease_id = lease->lease_id, id = unit->grant.unit] {
    if (SlotAt(slot_index).runner == runner) EndUnit(slot_index, lease_id, id);
  });
}

void SimWorker::EndUnit(int32_t slot_index, const std::string& lease_id, const UnitId& id) {
  Lease* const lease = FindLease(lease_id);
  if (lease == nullptr || !lease->units.contains(id)) return;  // revoked
  Unit& unit = lease->units.at(id);
  if (unit.state != Unit::State::kRunning) return;
  if (workload_->IsPoison(lease->cell->cell.key, id.item_index)) {
    ++counts_->poisoned;
    return CrashRunner(slot_index);
  }
  if (random_.Chance(faults_.runner_crash)) {
    ++counts_->runner_crashes;
    return CrashRunner(slot_index);
  }
  unit.state = Unit::State::kEnded;
  storage::SampleRecord sample = Workload::MakeSample(*lease->cell, unit.grant);
  sample.lease_id = lease_id;
  sample.worker_id = options_.worker_id;
  sample.incarnation = incarnation_;
  sample.finished_time_us =
      1'700'000'000'000'000 + absl::ToInt64Microseconds(events_->now() + options_.clock_ahead);
  spool_.push_back(std::move(sample));
  ++counts_->samples;
  ReportSoon(random_.Between(absl::ZeroDuration(), absl::Seconds(30)));
  FillSlot(slot_index);
}

// Everything that it was generating has failed.
void SimWorker::CrashRunner(int32_t slot_index) {
  for (Lease& lease : leases_) {
    if (lease.slot_index != slot_index) continue;
    for (auto& [id, unit] : lease.units) {
      if (unit.state != Unit::State::kRunning && unit.state != Unit::State::kHanging) continue;
      unit.state = Unit::State::kEnded;
      failures_.push_back({0, {lease.lease_id, id, unit.grant.epoch, "the runner died", false}});
    }
  }
  Slot& slot = SlotAt(slot_index);
  slot.phase = SlotPhase::kRestarting;
  slot.loaded.clear();
  Later(random_.Between(absl::Seconds(10), absl::Minutes(5)),
        [this, slot_index, runner = ++slot.runner] {
          if (SlotAt(slot_index).runner != runner) return;
          SlotAt(slot_index).phase = SlotPhase::kIdle;
          FillSlot(slot_index);
        });
}

void SimWorker::OnRevoke(const coordinator::RevokeMessage& revoke) {
  Lease* const lease = FindLease(revoke.lease_id);
  if (lease == nullptr) return;
  const int32_t slot_index = lease->slot_index;
  for (const UnitId& unit : revoke.units) lease->units.erase(unit);
  if (revoke.units.empty() || lease->units.empty()) {
    std::erase_if(leases_, [&](const Lease& held) { return held.lease_id == revoke.lease_id; });
  }
  FillSlot(slot_index);
  ExitIfDrained();
}

void SimWorker::OnAcknowledge(int64_t sequence) {
  std::vector<std::pair<std::string, UnitId>> settled;
  std::erase_if(failures_, [&](const auto& failure) {
    if (failure.first == 0 || failure.first > sequence) return false;
    settled.emplace_back(failure.second.lease_id, failure.second.unit);
    return true;
  });
  for (const auto& [lease_id, unit] : settled) Settle(lease_id, unit);
}

void SimWorker::Settle(const std::string& lease_id, const UnitId& id) {
  Lease* const lease = FindLease(lease_id);
  if (lease == nullptr) return;
  const auto unit = lease->units.find(id);
  if (unit == lease->units.end()) return;
  lease->settled_tokens += unit->second.num_tokens;
  lease->units.erase(unit);
  if (lease->units.empty()) {
    std::erase_if(leases_, [&](const Lease& held) { return held.lease_id == lease_id; });
  }
  ExitIfDrained();
}

// Reports ---------------------------------------------------------------------------------------

void SimWorker::ReportSoon(absl::Duration delay) {
  if (report_scheduled_ || reporting_ || spool_.empty()) return;
  report_scheduled_ = true;
  Later(delay, [this] {
    report_scheduled_ = false;
    Report();
  });
}

void SimWorker::Report() {
  if (spool_.empty() || reporting_) return;
  reporting_ = true;
  ++counts_->reports;
  coordinator::ReportCommand command;
  command.worker_id = options_.worker_id;
  command.incarnation = incarnation_;
  command.samples.assign(spool_.begin(), spool_.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                              spool_.size(), kMaxReported)));
  const int64_t call = ++call_;
  Later(kCallTimeout, [this, call] {
    if (call != call_) return;
    ++call_;
    reporting_ = false;
    Report();
  });
  wire_->CallReport(command, [this, call, life = life_, samples = command.samples](
                                 const absl::StatusOr<std::vector<InsertOutcome>>& outcomes) {
    if (life != life_ || call != call_) return;  // an answer nobody waits for any more
    if (events_->now() < stalled_until_) return;
    ++call_;
    reporting_ = false;
    if (!outcomes.ok()) return ReportSoon(random_.Between(absl::Seconds(5), absl::Minutes(2)));
    for (const storage::SampleRecord& sample : samples) {
      std::erase_if(spool_, [&](const storage::SampleRecord& spooled) {
        return spooled.unit == sample.unit && spooled.epoch == sample.epoch &&
               spooled.lease_id == sample.lease_id;
      });
    }
    // Settling the last one may end the process.
    for (const storage::SampleRecord& sample : samples) Settle(sample.lease_id, sample.unit);
    if (life == life_) ReportSoon(absl::Seconds(1));
  });
}

// Jobs ------------------------------------------------------------------------------------------

void SimWorker::OnJob(const coordinator::JobMessage& job) {
  Slot& slot = SlotAt(job.slot_index);
  if (slot.job_id == job.job_id) return;
  // What ran there begins anew afterwards, if it is still wanted.
  for (Lease& lease : leases_) {
    if (lease.slot_index != job.slot_index) continue;
    for (auto& [id, unit] : lease.units) {
      if (unit.state != Unit::State::kEnded) unit.state = Unit::State::kWaiting;
    }
  }
  slot.job_id = job.job_id;
  slot.phase = SlotPhase::kQuantizing;
  slot.loaded.clear();
  Later(random_.Between(absl::Minutes(2), absl::Minutes(50)), [this, job, runner = ++slot.runner] {
    if (SlotAt(job.slot_index).runner == runner) FinishJob(job);
  });
}

void SimWorker::FinishJob(const coordinator::JobMessage& job) {
  coordinator::JobReport report;
  report.worker_id = options_.worker_id;
  report.incarnation = incarnation_;
  report.job_id = job.job_id;
  report.epoch = job.epoch;
  report.artifact_key = job.cell->artifact->key;
  if (workload_->IsBadArtifact(report.artifact_key)) {
    report.error = "the matrix is singular";
  } else if (random_.Chance(faults_.job_failure)) {
    ++counts_->job_failures;
    report.error = "out of memory";
    report.infrastructure = true;
  } else {
    report.manifest_sha256 = std::string(64, 'a');
  }
  Slot& slot = SlotAt(job.slot_index);
  slot.phase = SlotPhase::kIdle;
  slot.job_id = 0;
  SendJobReport(report);
  FillSlot(job.slot_index);
}

void SimWorker::SendJobReport(const coordinator::JobReport& report) {
  const auto answered = std::make_shared<bool>(false);
  wire_->CallJobReport(report, [answered](const absl::Status& status) {
    if (!absl::IsUnavailable(status)) *answered = true;
  });
  Later(kCallTimeout, [this, answered, report] {
    if (!*answered) SendJobReport(report);
  });
}

}  // namespace assay::simulation
