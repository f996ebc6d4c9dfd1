// What a slot needs from the agent around it. Slots call it on their own threads; every method is
// thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <string>

#include "assay/v1/runner.pb.h"
#include "assay/v1/worker_service.pb.h"

namespace assay::worker {

// Where a job's runner reads and writes.
struct JobFolders {
  std::string model_dir;
  std::string output_dir;  // does not exist yet; its parent does
  bool is_made = false;    // the artifact is here already: nothing to run
};

class SlotHost {
 public:
  virtual ~SlotHost() = default;

  // The folder of a model or artifact with the right content, which stays until the slot asks for
  // another. May take long: hashing, fetching.
  virtual absl::StatusOr<std::string> FindModel(int slot_index, const v1::ModelRef& model) = 0;

  // A finished generation; lease and epoch are set, the grade is not.
  virtual void OnSample(v1::Sample sample, const std::string& grader, const std::string& gold) = 0;
  virtual void OnFailure(v1::UnitFailure failure) = 0;
  virtual void OnTokens(const std::string& lease_id, const v1::UnitKey& unit,
                        int64_t num_tokens) = 0;

  virtual absl::StatusOr<JobFolders> PrepareJob(const v1::JobGrant& job) = 0;
  // Publishes the output (when `status` is OK) and tells the coordinator, for as long as that
  // takes. `infrastructure`: the failure is the machine's.
  virtual void FinishJob(const v1::JobGrant& job, const JobFolders& folders, absl::Status status,
                         bool infrastructure, absl::Duration duration) = 0;

  virtual void OnRunnerStarted(const v1::Provenance& provenance) = 0;
  // The slot's state is another one: the coordinator should hear of it soon.
  virtual void OnChange() = 0;
};

}  // namespace assay::worker
