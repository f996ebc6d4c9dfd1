// Takes samples out of the spool and reports them until each is answered.
//
// Batches of at most 32 samples and 1 MiB. When the coordinator is away the batch goes back into
// the spool and is tried again with backoff. A batch that it refuses as invalid is sent sample by
// sample, and one that is refused alone is given up, loudly: its unit is reported as failed.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "assay/v1/worker_service.pb.h"
#include "worker/agent/backoff.h"
#include "worker/agent/coordinator_client.h"
#include "worker/agent/spool.h"

namespace assay::worker {

class Reporter {
 public:
  static constexpr int kMaxBatchSamples = 32;
  // What is left of 1 MiB for samples after the request's own fields.
  static constexpr int64_t kMaxBatchBytes = (int64_t{1} << 20) - 4096;

  struct Options {
    std::string worker_id;
    std::string incarnation;
    absl::Duration first_retry = absl::Milliseconds(200);
    absl::Duration longest_retry = absl::Seconds(10);
  };
  struct Handlers {
    // Stored, a duplicate, or fenced: the coordinator has answered.
    std::function<void(const v1::Sample&)> on_settled;
    // Refused for good.
    std::function<void(const v1::Sample&, const std::string&)> on_refused;
  };

  // `client` and `spool` outlive the reporter. Handlers are called on its thread.
  Reporter(Options options, CoordinatorClient* client, Spool* spool, Handlers handlers);
  // The client must be shut down and the spool interrupted by then.
  ~Reporter();
  Reporter(const Reporter&) = delete;
  Reporter& operator=(const Reporter&) = delete;

  // The coordinator is there again: no more waiting.
  void Wake();

 private:
  struct Batch {
    v1::ReportSamplesRequest request;
    std::vector<int64_t> ids;
    bool empty() const { return ids.empty(); }
  };

  void Run();
  Batch NextBatch();
  // False when it must be tried again later; what was answered is settled in any case.
  bool Report(const Batch& batch);
  bool ReportOneByOne(const Batch& batch);
  bool Settle(const Batch& batch, const v1::ReportSamplesResponse& response);
  void WaitBeforeRetry();

  const Options options_;
  CoordinatorClient* const client_;
  Spool* const spool_;
  const Handlers handlers_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool woken_ = false;

  Backoff backoff_;  // of the thread alone
  std::thread thread_;
};

}  // namespace assay::worker
