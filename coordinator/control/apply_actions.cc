// The scheduler's decisions as rows and messages.
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "coordinator/control/control_plane.h"
#include "coordinator/control/unit_seed.h"

namespace assay::coordinator {

using storage::AttemptEnd;

namespace {

struct LeaseEndNames {
  const char* reason;  // lease.end_reason
  AttemptEnd attempt;
};

LeaseEndNames NamesOf(LeaseEnd end) {
  switch (end) {
    case LeaseEnd::kExpired:
      return {"expired", AttemptEnd::kExpired};
    case LeaseEnd::kWorkerLost:
      return {"worker_lost", AttemptEnd::kWorkerLost};
    case LeaseEnd::kRevoked:
      return {"revoked", AttemptEnd::kRevoked};
    case LeaseEnd::kFailed:
      return {"failed", AttemptEnd::kFailed};
    case LeaseEnd::kCompleted:
      break;
  }
  return {"completed", AttemptEnd::kReturned};
}

}  // namespace

absl::Status ControlPlane::Apply(const Actions& actions) {
  for (const Action& action : actions) {
    ASSAY_RETURN_IF_ERROR(std::visit([&](const auto& one) { return ApplyOne(one); }, action));
  }
  return absl::OkStatus();
}

template <typename Body>
void ControlPlane::Tell(const std::string& worker_id, const std::string& incarnation, Body body) {
  batch_messages_.push_back({worker_id, incarnation, std::move(body)});
}

absl::Status ControlPlane::RecordEvent(storage::EventRecord event) {
  event.time_us = now_us_;
  if (event.detail_json.empty()) event.detail_json = "{}";
  ASSAY_RETURN_IF_ERROR(store_->InsertEvent(event).status());
  batch_events_.push_back(std::move(event));
  return absl::OkStatus();
}

void ControlPlane::LogEvents() {
  for (const storage::EventRecord& event : batch_events_) {
    const bool bad = event.kind.ends_with("_failed") || event.kind.ends_with("_expired") ||
                     event.kind.ends_with("_lost") || event.kind == "unit_quarantined";
    const spdlog::level::level_enum level = bad ? spdlog::level::warn : spdlog::level::info;
    if (!spdlog::should_log(level)) continue;
    // What of the detail names something is a field of its own; the rest stays together.
    nlohmann::json detail = nlohmann::json::parse(event.detail_json, nullptr, false);
    const auto take = [&detail](const char* name) -> std::string {
      if (!detail.is_object() || !detail.contains(name)) return "";
      const nlohmann::json value = detail[name];
      detail.erase(name);
      return value.is_string() ? value.get<std::string>() : value.dump();
    };
    const std::string lease = take("lease_id");
    const std::string item = take("item_index");
    const std::string repeat = take("repeat");
    LogWith(level,
            {{"sweep", event.sweep_id},
             {"cell", event.cell_id == 0 ? "" : fmt::format("{}", event.cell_id)},
             {"unit", item.empty() ? "" : fmt::format("{}/{}/{}", event.cell_id, item, repeat)},
             {"lease", lease},
             {"worker", event.worker_id},
             {"detail", detail.empty() ? "" : detail.dump()}},
            event.kind);
  }
}

absl::Status ControlPlane::ApplyOne(const GrantUnits& grant) {
  const std::shared_ptr<const CellContext> cell = contexts_.at(grant.cell_id);
  ASSAY_ASSIGN_OR_RETURN(const Items items, ItemsOf(cell->cell.benchmark_id));
  storage::LeaseRecord lease;
  lease.lease_id = grant.lease_id;
  lease.cell_id = grant.cell_id;
  lease.worker_id = grant.worker_id;
  lease.incarnation = grant.incarnation;
  lease.slot_index = grant.slot_index;
  lease.granted_time_us = now_us_;
  ASSAY_ASSIGN_OR_RETURN(
      const std::vector<int64_t> epochs,
      store_->GrantUnits(lease, worker_provenance_.at(grant.worker_id), grant.units));
  GrantMessage message{grant.lease_id, grant.slot_index, cell, {}};
  message.units.reserve(grant.units.size());
  for (size_t i = 0; i < grant.units.size(); ++i) {
    const storage::UnitId& unit = grant.units[i];
    const storage::ItemRecord& item = items->at(static_cast<size_t>(unit.item_index));
    if (epochs[i] == 2) {
      scheduler_->CountReroll(grant.cell_id);
      ++batch_counters_.num_rerolls;
    }
    message.units.push_back({unit, epochs[i], UnitSeed(*cell, item.name, unit.repeat),
                             item.user_text, item.gold, scheduler_->ExpectedTokens(unit)});
  }
  ++batch_counters_.num_leases_granted;
  batch_counters_.num_units_granted += static_cast<int64_t>(grant.units.size());
  Tell(grant.worker_id, grant.incarnation, std::move(message));
  return absl::OkStatus();
}

absl::Status ControlPlane::ApplyOne(const EndLease& end) {
  const LeaseEndNames names = NamesOf(end.reason);
  ASSAY_RETURN_IF_ERROR(
      store_->EndLease(end.lease_id, names.reason, names.attempt, now_us_).status());
  if (end.reason == LeaseEnd::kCompleted || end.reason == LeaseEnd::kRevoked ||
      end.reason == LeaseEnd::kFailed) {
    return absl::OkStatus();
  }
  ++batch_counters_.num_leases_expired;
  return RecordEvent({.kind = end.reason == LeaseEnd::kExpired ? "lease_expired" : "lease_lost",
                      .worker_id = end.worker_id,
                      .detail_json = nlohmann::json{{"lease_id", end.lease_id},
                                                    {"num_units_left", end.num_units_left}}
                                         .dump()});
}

absl::Status ControlPlane::ApplyOne(const ReleaseUnits& release) {
  return store_->ReleaseUnits(release.lease_id, release.units, AttemptEnd::kRevoked,
                              "no sweep wants it now", now_us_);
}

absl::Status ControlPlane::ApplyOne(const QuarantineUnit& quarantine) {
  ASSAY_RETURN_IF_ERROR(store_->QuarantineUnit(quarantine.unit));
  ++batch_counters_.num_quarantined;
  return RecordEvent({.kind = "unit_quarantined",
                      .cell_id = quarantine.unit.cell_id,
                      .detail_json = nlohmann::json{{"item_index", quarantine.unit.item_index},
                                                    {"repeat", quarantine.unit.repeat}}
                                         .dump()});
}

absl::Status ControlPlane::ApplyOne(const GrantJob& grant) {
  const LoadId& load = scheduler_->jobs().at(grant.job_id).spec.load;
  std::shared_ptr<const CellContext> cell;
  for (const auto& [cell_id, context] : contexts_) {
    if (context->cell.artifact_id == load.artifact_id) {
      cell = context;
      break;
    }
  }
  ASSAY_CHECK(cell != nullptr, "job {} is granted and no cell waits for it", grant.job_id);
  JobMessage message{grant.job_id, 0, grant.slot_index, cell, ""};
  ASSAY_ASSIGN_OR_RETURN(message.epoch,
                         store_->GrantJob(grant.job_id, grant.worker_id, grant.incarnation));
  job_epochs_[grant.job_id] = message.epoch;
  if (!cell->artifact->calibration_hash.empty()) {
    ASSAY_ASSIGN_OR_RETURN(message.calibration_jsonl,
                           store_->LoadCalibration(cell->artifact->calibration_hash));
  }
  Tell(grant.worker_id, grant.incarnation, std::move(message));
  return absl::OkStatus();
}

absl::Status ControlPlane::ApplyOne(const ReleaseJob& release) {
  return store_->ReleaseJob(release.job_id, job_epochs_.at(release.job_id));
}

absl::Status ControlPlane::ApplyOne(const SettleSweep& settle) {
  const storage::SweepState state =
      settle.failed ? storage::SweepState::kFailed : storage::SweepState::kDone;
  ASSAY_RETURN_IF_ERROR(store_->SetSweepState(settle.sweep_id, state, now_us_));
  return RecordEvent({.kind = settle.failed ? "sweep_failed" : "sweep_done",
                      .sweep_id = sweep_names_.at(settle.sweep_id)});
}

absl::Status ControlPlane::ApplyOne(const SettleCell& settle) {
  return RecordEvent({.kind = settle.failed ? "cell_failed" : "cell_done",
                      .sweep_id = sweep_names_.at(settle.sweep_id),
                      .cell_id = settle.cell_id});
}

absl::Status ControlPlane::ApplyOne(const CellsWait& wait) {
  return RecordEvent(
      {.kind = "cell_waits_for_slot",
       .sweep_id = sweep_names_.at(wait.sweep_id),
       .cell_id = wait.cell_id,
       .detail_json =
           nlohmann::json{{"reason", wait.reason}, {"num_cells", wait.num_cells}}.dump()});
}

absl::Status ControlPlane::ApplyOne(const WorkerPresence& presence) {
  return RecordEvent({.kind = presence.online ? "worker_online" : "worker_offline",
                      .worker_id = presence.worker_id,
                      .detail_json = nlohmann::json{{"incarnation", presence.incarnation}}.dump()});
}

absl::Status ControlPlane::ApplyOne(const TellRevoke& revoke) {
  Tell(revoke.worker_id, revoke.incarnation, RevokeMessage{revoke.lease_id, revoke.units});
  return absl::OkStatus();
}

absl::Status ControlPlane::ApplyOne(const TellDrain& drain) {
  Tell(drain.worker_id, drain.incarnation, DrainMessage{});
  return absl::OkStatus();
}

absl::Status ControlPlane::ApplyOne(const TellShutdown& shutdown) {
  Tell(shutdown.worker_id, shutdown.incarnation, ShutdownMessage{shutdown.reason});
  return absl::OkStatus();
}

}  // namespace assay::coordinator
