// What goes wrong, and when.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "tests/simulation/world.h"

namespace assay::simulation {

using storage::InsertOutcome;

void World::ChangeWeather() {
  if (!IsFaulty()) return;
  Network::Weather weather;
  CoordinatorFaults coordinator;
  WorkerFaults workers;
  // Fair, or one kind of trouble, or all at once.
  const int64_t kind = random_.Below(6);
  const bool storm = kind == 5;
  if (kind == 1 || storm) {
    weather.drop = random_.Chance(0.3) ? 0.4 : 0.1;
    weather.delay = 0.1;
  }
  if (kind == 2 || storm) {
    weather.duplicate = 0.2;
    weather.replay = 0.1;
    weather.rude = random_.Chance(0.5);
    weather.delay = 0.1;
  }
  if (kind == 3 || storm) {
    coordinator.crash = 0.01;
    coordinator.slow = 0.05;
  }
  if (kind == 4 || storm) {
    workers.hang = 0.03;
    workers.runner_crash = 0.03;
    workers.job_failure = 0.2;
    workers.lost_spool = 0.5;
  }
  weather.replay += 0.02;
  Say(fmt::format("weather {}", kind));
  network_.SetWeather(weather);
  coordinator_->SetFaults(coordinator);
  for (const auto& worker : workers_) worker->SetFaults(workers);
  events_.After(random_.Between(absl::Hours(1), absl::Hours(6)), [this] { ChangeWeather(); });
}

void World::FaultsForEver() {
  if (!IsFaulty()) return;
  SimWorker& worker = *workers_[random_.Index(workers_.size())];
  switch (random_.Below(10)) {
    case 0:
    case 1:
      Say("crash " + worker.worker_id());
      worker.Crash();
      break;
    case 2:
    case 3: {
      const absl::Duration length = random_.Between(absl::Minutes(5), absl::Hours(2));
      Say("stall " + worker.worker_id());
      worker.Stall(length);
      break;
    }
    case 4:
    case 5: {
      const std::string link = random_.Chance(0.2) ? "people" : worker.worker_id();
      Say("cut off " + link);
      network_.Partition(link, random_.Between(absl::Minutes(5), absl::Hours(3)));
      break;
    }
    case 6:
      HurtTheDisk();
      break;
    case 7:
      if (coordinator_->is_up()) {
        coordinator_->Crash(CrashPoint::kNone,
                            random_.Chance(0.5) ? CrashKind::kPowerCut : CrashKind::kKilled);
      }
      break;
    case 8: {
      ++people_.wall_steps;
      const absl::Duration step = random_.Between(absl::Hours(-3), absl::Hours(3));
      Say("wall clock steps by " + absl::FormatDuration(step));
      coordinator_->clock().StepWall(step);
      break;
    }
    default:
      break;
  }
  if (random_.Chance(0.5)) Lie();
  events_.After(random_.Between(absl::Minutes(5), absl::Minutes(100)), [this] { FaultsForEver(); });
}

void World::HurtTheDisk() {
  const absl::Duration length = random_.Between(absl::Minutes(2), absl::Minutes(40));
  if (random_.Chance(0.5)) {
    ++people_.disk_full;
    Say("the disk is full");
    disk_.SetFull(true);
  } else {
    ++people_.disk_failing;
    Say("the disk fails");
    disk_.SetFailing(random_.Chance(0.3) ? 0.5 : 0.03);
  }
  events_.After(length, [this] {
    disk_.SetFull(false);
    disk_.SetFailing(0);
  });
}

void World::CalmDown() {
  Say("nothing fails from now on");
  network_.SetWeather({});
  network_.Heal();
  disk_.SetFull(false);
  disk_.SetFailing(0);
  coordinator_->SetFaults({});
  for (const auto& worker : workers_) worker->SetFaults({});
  events_.After(absl::Hours(4), [this] { ResumeForEver(); });  // what is on its way arrives first
}

// What a worker might say that is not so. Nothing of it may ever be stored.
void World::Lie() {
  if (grants_.empty()) return;
  const KnownGrant& grant =
      grants_[grants_.size() - 1 - random_.Index(std::min<size_t>(grants_.size(), 60))];
  const std::string thief = grant.worker_id + "-thief";
  storage::SampleRecord sample = MakeLie(grant);
  switch (random_.Below(6)) {
    case 0:  // an old grant, or a sample that is stored, with another text
      if (!oracle_.IsStale(grant.unit.unit, grant.unit.epoch)) return;
      break;
    case 1:
      ++sample.seed;
      break;
    case 2:
      sample.unit.item_index += 1000;
      break;
    case 3:
      sample.unit.cell_id += 1000;
      break;
    case 4:  // a grant that is still to come
      sample.epoch += random_.Between(1, 3);
      break;
    default:  // in the name of another worker, or with its lease
      sample.worker_id = thief;
      sample.incarnation = "thief";
      break;
  }
  Tell(grant.worker_id, std::move(sample));
}

// Some of the last units that were granted are answered now, truly, whatever became of them.
void World::AnswerLate() {
  constexpr size_t kNumAnswers = 8;
  for (size_t i = 0; i < std::min(grants_.size(), kNumAnswers); ++i) {
    const KnownGrant& grant =
        grants_[grants_.size() - 1 - random_.Index(std::min<size_t>(grants_.size(), 30))];
    storage::SampleRecord sample = Workload::MakeSample(*grant.cell, grant.unit);
    sample.lease_id = grant.lease_id;
    sample.worker_id = grant.worker_id;
    sample.incarnation = grant.incarnation;
    coordinator::ReportCommand report{grant.worker_id, grant.incarnation, {std::move(sample)}};
    Report(grant.worker_id, report, /*honest=*/true,
           [](const absl::StatusOr<std::vector<InsertOutcome>>&) {});
  }
}

// The requeue has raised the unit's epoch, and nobody has been granted it yet.
void World::LieAboutRequeued(const storage::UnitId& unit) {
  const auto grant = std::find_if(grants_.rbegin(), grants_.rend(),
                                  [&](const KnownGrant& known) { return known.unit.unit == unit; });
  if (grant == grants_.rend()) return;
  storage::SampleRecord sample = MakeLie(*grant);
  ++sample.epoch;
  Tell(grant->worker_id, std::move(sample));
}

storage::SampleRecord World::MakeLie(const KnownGrant& grant) {
  storage::SampleRecord sample = Workload::MakeSample(*grant.cell, grant.unit);
  sample.lease_id = grant.lease_id;
  sample.worker_id = grant.worker_id;
  sample.incarnation = grant.incarnation;
  sample.text_zstd = "a lie";
  return sample;
}

void World::Tell(const std::string& link, storage::SampleRecord lie) {
  ++people_.lies;
  coordinator::ReportCommand report;
  report.worker_id = lie.worker_id;
  report.incarnation = lie.incarnation;
  report.samples.push_back(std::move(lie));
  Report(link, report, /*honest=*/false, [](const absl::StatusOr<std::vector<InsertOutcome>>&) {});
}

}  // namespace assay::simulation
