// The parts of a simulation put together; simulation.h is its door.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/oracle.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/workload.h"

namespace assay::simulation {

class World final : public WorkerWire {
 public:
  World(const SimulationOptions& options, std::string database);

  SimulationResult Run();

  void SendHello(const coordinator::HelloCommand& hello, int64_t stream) override;
  void SendHeartbeat(const coordinator::HeartbeatCommand& heartbeat, int64_t stream) override;
  void CallReport(const coordinator::ReportCommand& report, ReportAnswer answer) override;
  void CallJobReport(const coordinator::JobReport& report,
                     std::function<void(const absl::Status&)> answer) override;

 private:
  using WorkerKey = std::pair<std::string, std::string>;  // worker id, incarnation

  struct KnownGrant {
    std::string worker_id;
    std::string incarnation;
    std::string lease_id;
    std::shared_ptr<const coordinator::CellContext> cell;
    coordinator::UnitGrant unit;
  };

  // The wire (world.cc).
  SimWorker* FindWorker(const std::string& worker_id);
  absl::Duration ClockAhead(const std::string& worker_id);
  void Deliver(const coordinator::OutgoingMessage& message);
  void BreakStream(const WorkerKey& key, int64_t stream);
  void OnCoordinatorDown();
  void Report(const std::string& link, const coordinator::ReportCommand& report, bool honest,
              ReportAnswer answer);

  // Faults (faults.cc).
  void FaultsForEver();
  void ChangeWeather();
  void CalmDown();
  void HurtTheDisk();
  void Lie();
  void AnswerLate();
  void LieAboutRequeued(const storage::UnitId& unit);
  static storage::SampleRecord MakeLie(const KnownGrant& grant);
  void Tell(const std::string& link, storage::SampleRecord lie);

  // People (people.cc).
  using Question = std::function<absl::Status(coordinator::ControlPlane&)>;
  void PeopleForEver();
  void ResumeForEver();
  // Asks until it is answered; each asking may be done twice.
  void Ask(Question question, std::function<void()> answered, int num_tries = 20);
  void Submit();
  void ChangeASweep();
  void Requeue();
  void DrainAWorker();
  void Say(const std::string& what);
  bool IsFaulty() const { return events_.now() < options_.length; }

  const SimulationOptions options_;
  Random random_;
  EventQueue events_;
  SimDisk disk_;
  Network network_;
  Workload workload_;
  Oracle oracle_;
  std::unique_ptr<SimCoordinator> coordinator_;
  WorkerCounts worker_counts_;
  PeopleCounts people_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::map<WorkerKey, int64_t> streams_;  // as the coordinator's process has them open

  // What people and liars know.
  int64_t num_ids_ = 0;
  int64_t num_requests_ = 0;
  std::vector<KnownGrant> grants_;
};

}  // namespace assay::simulation
