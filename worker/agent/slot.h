// A slot: one runner and the work that was leased to it.
//
//            grant            model differs and         units run
//   kIdle ----------> kLoading <------- nothing runs ---- kRunning
//     ^                  |  Loaded                            ^
//     |                  +------------------------------------+
//     |  runner dead, stuck or speaking garbage
//     +---------- kRestarting (backoff) <---------- any
//
// Units wait here in the order of their grants and go to the runner as lanes become free, so that a
// dying runner takes down only what it was generating: those units are reported as failed, and only
// one of them may be to blame. Units that only waited stay for the next runner, and go back to the
// coordinator as the machine's fault when that dies too. Another model is loaded only when nothing
// runs. A runner that generates nothing for `stuck_timeout` while units run is killed, and so is
// one that says nothing for as long after units were taken from it: else a lease that lapses and
// comes back to the same slot would hide a stuck runner for ever.
//
// Everything happens on the slot's own thread, fed by a queue; public methods are thread-safe and
// do not wait for it, the destructor aside.
#pragma once

#include <absl/time/time.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "assay/v1/runner.pb.h"
#include "assay/v1/worker_service.pb.h"
#include "base/clock.h"
#include "worker/agent/backoff.h"
#include "worker/agent/runner_process.h"
#include "worker/agent/slot_host.h"
#include "worker/agent/unit_id.h"

namespace assay::worker {

class Slot {
 public:
  struct Options {
    int index = 0;
    RunnerProcess::Options runner;
    int num_threads = 1;       // of the engine on a CPU, and of quantizers anywhere
    int max_num_seqs = 64;     // lanes asked for
    int64_t memory_bytes = 0;  // 0 is unlimited
    absl::Duration stuck_timeout = absl::Seconds(120);
    absl::Duration load_timeout = absl::Minutes(30);
    absl::Duration quantize_timeout = absl::Hours(12);
    absl::Duration first_restart_delay = absl::Milliseconds(250);
    absl::Duration longest_restart_delay = absl::Seconds(30);
    const Clock* clock = RealClock::Get();
  };

  // `host` outlives the slot.
  Slot(Options options, SlotHost* host);
  // Kills the runner; unfinished work is dropped without a word.
  ~Slot();
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

  void Enqueue(v1::Grant grant);
  void EnqueueJob(v1::JobGrant job);
  void Revoke(v1::Revoke revoke);

  // Reports what waits, or with `running` everything, as failed by the machine: somebody else does
  // it.
  void GiveBack(bool running);

  v1::SlotState state() const;
  // Neither units nor jobs are here.
  bool idle() const;

 private:
  // What must be loaded for a cell.
  struct LoadKey {
    std::string name, model_hash, artifact_key, numerics_version;
    int64_t max_model_len = 0;
    friend bool operator==(const LoadKey&, const LoadKey&) = default;
  };
  struct LeasedUnit {
    std::shared_ptr<const v1::Grant> grant;
    int unit_index = 0;
    const v1::Unit& unit() const { return grant->units(unit_index); }
  };
  struct RunningJob {
    v1::JobGrant grant;
    JobFolders folders;
    absl::Duration start;
  };

  struct FromRunner {
    int64_t generation;
    v1::RunnerEvent event;
  };
  struct RunnerEnded {
    int64_t generation;
    absl::Status status;
  };
  struct GiveBackOrder {
    bool running;
  };
  using Event =
      std::variant<FromRunner, RunnerEnded, v1::Grant, v1::JobGrant, v1::Revoke, GiveBackOrder>;

  static LoadKey KeyOf(const v1::Grant& grant);
  void Post(Event event);

  // The thread.
  void Run();
  std::vector<Event> WaitForEvents();
  void Handle(Event& event);
  void HandleRunnerEvent(v1::RunnerEvent& event);
  void AddGrant(v1::Grant grant);
  void AddJob(v1::JobGrant job);
  void DropUnits(const v1::Revoke& revoke);
  void GiveBackUnits(bool running);
  void OnUnitDone(v1::Sample sample);
  void OnUnitFailed(const v1::UnitFailed& failed);
  void OnProgress(const v1::EngineProgress& progress);
  void OnLoaded(const v1::Loaded& loaded);
  void OnLoadFailed(const v1::LoadFailed& failed);
  void EndJob(absl::Status status, bool infrastructure);

  // What can be done now.
  void Advance();
  void StartRunner();
  // False when the model cannot be had: the units that wait for it were failed.
  bool StartLoad(const LoadKey& key);
  void StartJob();
  void SubmitUnits();
  void CheckTimeouts();
  // Kills the runner and settles what it was doing.
  void LoseRunner(const std::string& why);
  void Send(const v1::RunnerCommand& command);
  void SendCancel(const v1::RunnerCommand& command);

  void Fail(const LeasedUnit& unit, const std::string& message, bool infrastructure);
  // Waiting units of `key`, when nothing else can be said of them.
  void FailWaiting(const LoadKey& key, const std::string& message, bool infrastructure);
  int Lookahead() const { return std::max(1, lanes_ / 8); }
  void Publish();

  const Options options_;
  SlotHost* const host_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Event> events_;
  v1::SlotState state_;
  bool idle_ = true;
  bool stopping_ = false;

  // Of the thread alone.
  std::unique_ptr<RunnerProcess> runner_;
  int64_t generation_ = 0;
  Backoff restart_backoff_;
  int deaths_in_a_row_ = 0;  // without a finished unit between them
  absl::Duration restart_time_;
  std::optional<LoadKey> loaded_;
  std::optional<LoadKey> loading_;
  absl::Duration busy_since_;  // of the load or the job
  int lanes_;
  std::deque<LeasedUnit> waiting_;
  std::map<UnitId, LeasedUnit> running_;
  std::deque<v1::JobGrant> jobs_;
  std::optional<RunningJob> job_;
  int64_t last_tokens_ = 0;
  absl::Duration last_progress_;
  absl::Duration last_heard_;       // anything at all from the runner
  bool cancel_unanswered_ = false;  // the runner has not spoken since units were cancelled
  double tokens_per_s_ = 0;
  int64_t memory_used_bytes_ = 0;

  std::thread thread_;
};

}  // namespace assay::worker
