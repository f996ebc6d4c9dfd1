// The agent: a worker's conversation with the coordinator and the care of its slots.
//
//   coordinator == Sync ==> [link] --grants--> [slots] == frames ==> runners
//        ^                                        | samples
//        |                                   [graders] == frames ==> assay-grader
//        |                                        |
//        +== ReportSamples == [reporter] <-- [spool] (disk)
//
// It holds no model and reads no weights; what a model says passes through as bytes. A coordinator
// that goes away costs nothing but time: slots go on with what is leased, samples wait in the
// spool, and the same incarnation says hello again. When the spool's disk refuses, or too many
// samples are unreported, the worker says that it takes no new work.
//
// Ends in one of three ways: drained (a signal or the coordinator's word), stopped at once (a
// second signal), or shut down by the coordinator because another start of this worker took over.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "assay/v1/worker_service.pb.h"
#include "storage/artifacts/artifact_store.h"
#include "worker/agent/coordinator_client.h"
#include "worker/agent/coordinator_link.h"
#include "worker/agent/failure_log.h"
#include "worker/agent/gpu_gangs.h"
#include "worker/agent/gpu_inventory.h"
#include "worker/agent/grader_pool.h"
#include "worker/agent/lease_table.h"
#include "worker/agent/model_finder.h"
#include "worker/agent/reporter.h"
#include "worker/agent/slot.h"
#include "worker/agent/spool.h"

namespace assay::worker {

class Agent final : public SlotHost {
 public:
  static constexpr int64_t kHalfOfTheDisk = -1;

  struct Options {
    std::string coordinator;  // HOST:PORT
    ClientTls tls;
    std::string worker_id;
    std::vector<std::string> model_roots;
    std::string artifacts_dir;
    int64_t max_artifact_bytes = 0;            // kept there; 0: no bound; or kHalfOfTheDisk
    int num_slots = 1;                         // of a worker without GPUs
    std::vector<GpuGang> gangs;                // of one with GPUs: a slot each
    std::shared_ptr<const GpuInventory> gpus;  // with gangs: what their memory is asked of
    Slot::Options slot;  // of each slot; its index and what its gang says aside
    Spool::Options spool;
    GraderPool::Options graders;
    // Hello tells the engine's version, which the first runner knows: how long to wait for it.
    absl::Duration provenance_wait = absl::Seconds(10);
    // How long the spool may take to empty itself at the end while the coordinator answers.
    absl::Duration flush_grace = absl::Seconds(10);
  };

  // FAILED_PRECONDITION when another worker uses the spool; UNAVAILABLE for its disk.
  static absl::StatusOr<std::unique_ptr<Agent>> Start(Options options);

  // Stops at once.
  ~Agent() override;

  // Takes nothing new and gives back what waits; what runs may finish within `grace` and is given
  // back then. Returns at once; finished() tells the end.
  void Drain(absl::Duration grace);

  // Kills the runners; what is not spooled is lost and will be run again.
  void Stop();

  bool finished() const;
  // Waits for the end, at most `timeout`. True when it has come.
  bool WaitFinished(absl::Duration timeout);
  // Why it ended: OK after a drain; CANCELLED when stopped; what the coordinator said otherwise.
  absl::Status end_status() const;

  const std::string& incarnation() const { return incarnation_; }

 private:
  enum class Phase { kWorking, kDraining, kEnded };

  explicit Agent(Options options);
  absl::Status Open();

  // SlotHost.
  absl::StatusOr<std::string> FindModel(int slot_index, const v1::ModelRef& model) override;
  void OnSample(v1::Sample sample, const std::string& grader, const std::string& gold) override;
  void OnFailure(v1::UnitFailure failure) override;
  void OnTokens(const std::string& lease_id, const v1::UnitKey& unit, int64_t num_tokens) override;
  absl::StatusOr<JobFolders> PrepareJob(const v1::JobGrant& job) override;
  void FinishJob(const v1::JobGrant& job, const JobFolders& folders, absl::Status status,
                 bool infrastructure, absl::Duration duration) override;
  void OnRunnerStarted(const v1::Provenance& provenance) override;
  void OnChange() override;

  // Link and reporter.
  v1::Provenance MakeProvenance();
  v1::Hello MakeHello();
  v1::Heartbeat MakeHeartbeat();
  void OnDirective(const v1::SyncResponse& response);
  void OnWelcome(const v1::Welcome& welcome);
  void OnGrant(const v1::Grant& grant);
  void OnJobGrant(const v1::JobGrant& job);
  void OnRevoke(const v1::Revoke& revoke);
  void OnRefused(const v1::Sample& sample, const std::string& why);

  void SpoolSample(const v1::Sample& sample);
  int NumUnreported() const;
  // 0 when a GPU does not answer.
  int64_t MemoryUsed(const GpuGang& gang) const;
  bool TakesWork() const;
  void CompleteJob(v1::CompleteJobRequest request);
  absl::Status PublishJob(const v1::JobGrant& job, const JobFolders& folders,
                          v1::CompleteJobRequest* request);
  // Tries until it works, the coordinator says no, or the agent stops.
  absl::Status RetryWhileAway(const std::string& what, const std::function<absl::Status()>& call);

  // The drain, on a thread of its own.
  void BeginDrain(std::optional<absl::Duration> grace);
  void RunDrain(std::optional<absl::Duration> grace);
  bool AllSlotsIdle() const;
  // Waits until `condition` holds; false after `timeout` or when the agent ends.
  bool WaitUntil(const std::function<bool()>& condition, absl::Duration timeout);
  void End(absl::Status status);

  const Options options_;
  const std::string incarnation_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  Phase phase_ = Phase::kWorking;
  absl::Status end_status_;
  std::optional<v1::Provenance> provenance_;
  int64_t sequence_ = 0;
  int max_unreported_samples_ = 256;
  std::thread drain_thread_;

  LeaseTable leases_;
  FailureLog failures_;

  // In the order of their making, except that the link starts last and stops first: slots and
  // graders tell it of changes all their lives.
  std::unique_ptr<storage::ArtifactStore> artifacts_;
  std::unique_ptr<CoordinatorClient> client_;
  std::unique_ptr<ModelFinder> models_;
  std::unique_ptr<Spool> spool_;
  std::unique_ptr<CoordinatorLink> link_;
  std::unique_ptr<GraderPool> graders_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::unique_ptr<Reporter> reporter_;
};

}  // namespace assay::worker
