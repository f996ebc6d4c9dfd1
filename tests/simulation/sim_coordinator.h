// The coordinator as a process: commands wait, are handled a batch at a time as ControlLoop does
// it, and answers and messages leave after the commit. It dies at any point of that, and starts
// again on what the disk still has.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "coordinator/control/control_plane.h"
#include "storage/stores/control_store.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/random.h"
#include "tests/simulation/sim_disk.h"
#include "tests/simulation/virtual_time.h"

namespace assay::simulation {

// Around each transaction.
enum class CrashPoint {
  kNone,
  kBeforeBegin,
  kWhileHandling,
  kInCommit,  // at one of its writes or syncs
  kAfterCommit,
  kAfterSomeAnswers,
};
inline constexpr int kNumCrashPoints = 6;

struct CoordinatorFaults {
  double crash = 0;  // per batch
  double slow = 0;   // per batch: the disk takes up to a minute
};

struct CoordinatorCounts {
  int64_t batches = 0;
  int64_t lost_batches = 0;
  int64_t slow_batches = 0;
  int64_t starts = 0;
  int64_t refused_starts = 0;
  int64_t crashes[kNumCrashPoints] = {};
  int64_t power_cuts = 0;
};

class SimCoordinator {
 public:
  using Work = std::function<void(coordinator::ControlPlane&)>;
  using Done = std::function<void(const absl::Status& committed)>;
  using Sink = std::function<void(const coordinator::OutgoingMessage&)>;

  struct Options {
    std::string database;
    coordinator::ControlPlane::Options control;
    absl::Duration tick_interval;
  };

  // What is given outlives it. `on_down` hears of every end of the process.
  SimCoordinator(EventQueue* events, SimDisk* disk, Oracle* oracle, uint64_t seed, Options options,
                 Sink sink, std::function<void()> on_down);
  ~SimCoordinator();

  void Start();
  bool is_up() const { return plane_ != nullptr; }
  void SetFaults(const CoordinatorFaults& faults) { faults_ = faults; }
  // Who says so and by how much the sender's clock is ahead. Nobody hears it while it is down.
  void Post(absl::Duration sender_clock_ahead, Work work, Done done);
  void Crash(CrashPoint point, CrashKind kind);

  MachineClock& clock() { return clock_; }
  coordinator::ControlPlane* plane() { return plane_.get(); }
  storage::ControlStore* store() { return store_.get(); }
  const CoordinatorCounts& counts() const { return counts_; }

 private:
  struct Command {
    absl::Duration ahead;
    Work work;
    Done done;
  };

  void ForgetSaidRevokes(std::vector<coordinator::OutgoingMessage>* messages);
  void ScheduleBatch(absl::Duration delay);
  void RunBatch();
  bool Handle(std::vector<Command>* commands, CrashPoint point, CrashKind kind);
  void Answer(const std::vector<Command>& commands, const absl::Status& status, CrashPoint point,
              CrashKind kind);

  EventQueue* const events_;
  SimDisk* const disk_;
  Oracle* const oracle_;
  Random random_;
  const Options options_;
  const Sink sink_;
  const std::function<void()> on_down_;
  MachineClock clock_;
  CoordinatorFaults faults_;
  CoordinatorCounts counts_;

  int64_t life_ = 0;  // events of an earlier life do nothing
  std::unique_ptr<storage::ControlStore> store_;
  std::unique_ptr<coordinator::ControlPlane> plane_;
  std::deque<Command> queue_;
  std::set<std::string> said_revokes_;  // for a planted bug
  bool batch_scheduled_ = false;
  bool batch_was_lost_ = false;
  Instant next_tick_;
  Instant busy_until_;
};

}  // namespace assay::simulation
