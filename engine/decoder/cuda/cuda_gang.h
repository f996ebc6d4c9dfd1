// The ranks of a runner: one GPU alone, or a tensor-parallel gang (engine/parallel) with a thread
// for each GPU.
//
// A rank that fails, or does not answer in time, takes the gang with it: the waits of the others
// are ended, the error names the rank and its device, and every later call answers the same. The
// process is then to end.
//
// Not thread-safe: one thread calls, and its calls run on the ranks' threads.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/decoder/cuda/cuda_model.h"
#include "engine/decoder/cuda/cuda_rank.h"
#include "engine/decoder/cuda/cuda_runner.h"
#include "engine/parallel/communicator.h"
#include "engine/parallel/rank_threads.h"

namespace assay::engine::cuda {

class CudaGang {
 public:
  // Plans every rank's memory, of which the smallest cache decides for all, and loads all ranks at
  // once. Errors as LoadCudaRunner.
  static absl::StatusOr<std::unique_ptr<CudaGang>> Load(const std::string& model_dir,
                                                        const CudaRunnerOptions& options,
                                                        const CudaDecoder::Limits& limits);
  ~CudaGang();

  int size() const { return static_cast<int>(ranks_.size()); }
  CudaRank& rank(int rank) { return *ranks_[static_cast<size_t>(rank)]; }
  const CudaRank& rank(int rank) const { return *ranks_[static_cast<size_t>(rank)]; }
  const ModelConfig& config() const { return plans_[0].shard.whole; }  // of the whole model
  int64_t memory_bytes() const;                                        // of all ranks

  // Calls body(rank, its number) for all ranks at once, each on its thread, and waits for them.
  using Body = std::function<absl::Status(CudaRank& rank, int number)>;
  absl::Status ForEach(const Body& body) { return ForEach(body, timeout_); }

 private:
  explicit CudaGang(absl::Duration timeout) : timeout_(timeout) {}
  absl::Status ForEach(const Body& body, absl::Duration timeout);
  absl::Status Connect(const CudaRunnerOptions& options, const std::vector<int64_t>& window_bytes);
  absl::Status Describe(const RankThreads::Outcome& outcome, absl::Duration timeout);
  std::string NameOf(int rank) const;

  const absl::Duration timeout_;
  std::vector<int> devices_;
  std::vector<CudaModelPlan> plans_;  // by rank, as all below
  Communicators communicators_;       // none for one GPU; dies after the graphs of the ranks
  std::vector<std::unique_ptr<CudaRank>> ranks_;
  std::unique_ptr<RankThreads> threads_;  // likewise
  absl::Status failure_;
};

}  // namespace assay::engine::cuda
