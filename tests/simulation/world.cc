#include "tests/simulation/world.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/hash.h"
#include "base/status.h"
#include "tests/simulation/mutants.h"

namespace assay::simulation {

using coordinator::ControlPlane;
using coordinator::GrantMessage;
using coordinator::OutgoingMessage;
using storage::InsertOutcome;

namespace {

// After the last fault: the longest queue of a seed is some hours of work.
constexpr absl::Duration kLongestEnd = absl::Hours(120);

}  // namespace

World::World(const SimulationOptions& options, std::string database)
    : options_(options),
      random_(options.seed),
      disk_(random_.Next()),
      network_(&events_, random_.Next()),
      workload_(random_.Next()),
      oracle_(&events_, {kLeaseTtl, kHeartbeatInterval}) {
  if (PlantedMutant() == Mutant::kSyncIgnored) {
    CountMutation();
    disk_.IgnoreSyncs();
  }
  SimCoordinator::Options coordinator;
  coordinator.database = std::move(database);
  coordinator.tick_interval = kTickInterval;
  coordinator.control.heartbeat_interval = kHeartbeatInterval;
  coordinator.control.lease_ttl = kLeaseTtl;
  coordinator.control.max_unreported_samples = 16;
  coordinator.control.make_id = [this](const std::string& prefix) {
    return fmt::format("{}-{}", prefix, ++num_ids_);
  };
  coordinator_ = std::make_unique<SimCoordinator>(
      &events_, &disk_, &oracle_, random_.Next(), std::move(coordinator),
      [this](const OutgoingMessage& message) { Deliver(message); },
      [this] { OnCoordinatorDown(); });
  const int num_workers = static_cast<int>(random_.Between(1, 4));
  for (int i = 0; i < num_workers; ++i) {
    SimWorker::Options worker;
    worker.worker_id = fmt::format("w{}", i);
    worker.slots = workload_.MakeSlots(i);
    oracle_.AddWorker(worker.worker_id, worker.slots);
    worker.heartbeat_interval = kHeartbeatInterval;
    worker.clock_ahead = random_.Between(absl::Hours(-2), absl::Hours(2));
    workers_.push_back(std::make_unique<SimWorker>(&events_, this, &workload_, &worker_counts_,
                                                   random_.Next(), std::move(worker)));
  }
}

SimulationResult World::Run() {
  coordinator_->Start();
  for (const auto& worker : workers_) {
    events_.After(random_.Between(absl::ZeroDuration(), absl::Minutes(10)),
                  [&worker] { worker->Start(); });
  }
  ChangeWeather();
  FaultsForEver();
  PeopleForEver();
  uint64_t digest = options_.seed;
  bool is_calm = false;
  bool has_ended = false;
  while (oracle_.violation().empty() && !has_ended && events_.RunNext()) {
    if (!IsFaulty() && !std::exchange(is_calm, true)) CalmDown();
    has_ended =
        is_calm && coordinator_->is_up() && coordinator_->plane()->scheduler().sweeps().empty();
    if (events_.now() > options_.length + kLongestEnd) {
      oracle_.Fail("a sweep does not end");
    }
    digest =
        digest * 0x100000001b3ull ^ static_cast<uint64_t>(absl::ToInt64Microseconds(events_.now()));
  }
  if (oracle_.violation().empty()) oracle_.CheckEverything(*coordinator_->plane());

  SimulationResult result;
  result.seed = options_.seed;
  result.violation = oracle_.violation();
  result.simulated = events_.now();
  result.network = network_.counts();
  result.coordinator = coordinator_->counts();
  result.workers = worker_counts_;
  result.people = people_;
  result.num_events = events_.num_events();
  result.num_checks = oracle_.num_checks();
  result.num_accepted = oracle_.num_accepted();
  result.num_duplicates = oracle_.num_duplicates();
  result.num_fenced = oracle_.num_fenced();
  result.num_quarantined = oracle_.num_quarantined();
  result.writes_refused = disk_.num_refused();
  result.sectors_lost = disk_.num_torn();
  result.digest = Hash64({std::to_string(digest), std::to_string(result.num_accepted),
                          std::to_string(result.num_fenced), std::to_string(result.network.sent)});
  return result;
}

void World::Say(const std::string& what) {
  if (!options_.verbose) return;
  fmt::print(stderr, "{:>12} {}\n",
             absl::FormatDuration(absl::Trunc(events_.now(), absl::Seconds(1))), what);
}

// Streams ---------------------------------------------------------------------------------------

SimWorker* World::FindWorker(const std::string& worker_id) {
  for (const auto& worker : workers_) {
    if (worker->worker_id() == worker_id) return worker.get();
  }
  return nullptr;
}

absl::Duration World::ClockAhead(const std::string& worker_id) {
  const SimWorker* const worker = FindWorker(worker_id);
  return worker == nullptr ? absl::ZeroDuration() : worker->clock_ahead();
}

void World::SendHello(const coordinator::HelloCommand& hello, int64_t stream) {
  const WorkerKey key = {hello.hello.worker_id, hello.hello.incarnation};
  network_.Send(key.first, fmt::format("{}/{}/up", key.second, stream), [this, key, hello, stream] {
    if (!coordinator_->is_up()) return BreakStream(key, stream);
    // An old stream's hello that comes late replaces the new one, and the other way round.
    const auto [open, inserted] = streams_.try_emplace(key, stream);
    if (!inserted && open->second != stream) {
      BreakStream(key, open->second);  // erases the entry
      streams_[key] = stream;
    }
    const auto outcome = std::make_shared<absl::Status>();
    coordinator_->Post(
        ClockAhead(key.first),
        [hello, outcome](ControlPlane& plane) { *outcome = plane.HandleHello(hello).status(); },
        [this, key, stream, outcome](const absl::Status& committed) {
          if (!committed.ok() || !outcome->ok()) BreakStream(key, stream);
        });
  });
}

void World::BreakStream(const WorkerKey& key, int64_t stream) {
  const auto open = streams_.find(key);
  if (open != streams_.end() && open->second == stream) streams_.erase(open);
  events_.After(absl::Seconds(1), [this, key, stream] {
    SimWorker* const worker = FindWorker(key.first);
    if (worker != nullptr && worker->incarnation() == key.second) worker->OnStreamBroken(stream);
  });
}

void World::OnCoordinatorDown() {
  Say("the coordinator dies");
  const auto broken = std::exchange(streams_, {});
  for (const auto& [key, stream] : broken) BreakStream(key, stream);
}

void World::SendHeartbeat(const coordinator::HeartbeatCommand& heartbeat, int64_t stream) {
  const WorkerKey key = {heartbeat.heartbeat.worker_id, heartbeat.heartbeat.incarnation};
  network_.Send(key.first, fmt::format("{}/{}/up", key.second, stream),
                [this, key, heartbeat, stream] {
                  const auto open = streams_.find(key);
                  if (open == streams_.end() || open->second != stream) {
                    return BreakStream(key, stream);
                  }
                  coordinator_->Post(
                      ClockAhead(key.first),
                      [this, heartbeat](ControlPlane& plane) {
                        coordinator::HeartbeatCommand command = heartbeat;
                        if (PlantedMutant() == Mutant::kLeaseRenewedIdle) {
                          CountMutation();
                          for (auto& lease : command.heartbeat.leases) {
                            lease.tokens_generated += absl::ToInt64Seconds(events_.now());
                          }
                        }
                        oracle_.OnHeartbeat(plane, heartbeat);
                        oracle_.OnHeartbeatHandled(plane.HandleHeartbeat(command));
                      },
                      [](const absl::Status&) {});
                });
}

void World::Deliver(const OutgoingMessage& message) {
  if (const auto* grant = std::get_if<GrantMessage>(&message.body)) {
    for (const coordinator::UnitGrant& unit : grant->units) {
      grants_.push_back(
          {message.worker_id, message.incarnation, grant->lease_id, grant->cell, unit});
    }
  }
  const WorkerKey key = {message.worker_id, message.incarnation};
  const auto open = streams_.find(key);
  if (open == streams_.end()) return;
  network_.Send(key.first, fmt::format("{}/{}/down", key.second, open->second),
                [this, key, message, stream = open->second] {
                  const auto now_open = streams_.find(key);
                  if (now_open == streams_.end() || now_open->second != stream) return;
                  FindWorker(key.first)->Receive(key.second, message);
                });
}

// Calls -----------------------------------------------------------------------------------------

void World::CallReport(const coordinator::ReportCommand& report, ReportAnswer answer) {
  Report(report.worker_id, report, /*honest=*/true, std::move(answer));
}

void World::Report(const std::string& link, const coordinator::ReportCommand& report, bool honest,
                   ReportAnswer answer) {
  network_.Send(link, "", [this, link, report, honest, answer = std::move(answer)] {
    using Outcomes = absl::StatusOr<std::vector<InsertOutcome>>;
    const auto outcomes = std::make_shared<Outcomes>(std::vector<InsertOutcome>());
    coordinator_->Post(
        ClockAhead(link),
        [this, report, honest, outcomes](ControlPlane& plane) {
          *outcomes = plane.HandleReport(report);
          // A store that fails takes back the whole batch.
          if (outcomes->ok() || absl::IsInvalidArgument(outcomes->status())) {
            oracle_.OnReport(report, *outcomes, honest);
          }
        },
        [this, link, report, honest, outcomes, answer](const absl::Status& committed) {
          const Outcomes result = committed.ok() ? *outcomes : Outcomes(committed);
          if (result.ok() && honest) oracle_.OnAcknowledged(report, *result);
          network_.Send(link, "", [answer, result] { answer(result); });
        });
  });
}

void World::CallJobReport(const coordinator::JobReport& report,
                          std::function<void(const absl::Status&)> answer) {
  network_.Send(report.worker_id, "", [this, report, answer = std::move(answer)] {
    const auto outcome = std::make_shared<absl::Status>();
    coordinator_->Post(
        ClockAhead(report.worker_id),
        [this, report, outcome](ControlPlane& plane) {
          *outcome = plane.HandleJobReport(report);
          oracle_.OnJobReport(report, *outcome);
        },
        [this, report, outcome, answer](const absl::Status& committed) {
          const absl::Status result = committed.ok() ? *outcome : committed;
          network_.Send(report.worker_id, "", [answer, result] { answer(result); });
        });
  });
}

SimulationResult Simulate(const SimulationOptions& options) {
  // Only the lock file is real, and an empty file where the storage code asks the operating system
  // whether there is a database.
  const std::filesystem::path directory =
      std::filesystem::temp_directory_path() / fmt::format("assay-simulation-{}", getpid());
  std::filesystem::create_directories(directory);
  const std::string database = directory / "assay.db";
  std::ofstream(database).flush();
  SimulationResult result;
  {
    World world(options, database);
    result = world.Run();
  }
  std::filesystem::remove_all(directory);
  return result;
}

}  // namespace assay::simulation
