// What one GPU holds and does: its weights, its part of the KV cache, the step inputs, the graphs,
// and the launches of a pass. The runner above (cuda_runner.cc) plans passes and hands each to its
// ranks (cuda_gang.h), which launch the same and draw the same ids.
//
// A pass in which every sequence adds one generated token is launched as a captured graph for its
// number of rows; others (prompts, forced or recomputed tokens) as single kernels. Tokens of the
// prompt go through the prefill attention and all later ones through the decode attention, also
// when they are computed again, so that a result does not depend on preemption.
//
// Not thread-safe; the calling thread's current device becomes the rank's.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/decoder/cuda/block_swap.h"
#include "engine/decoder/cuda/cuda_decoder.h"
#include "engine/decoder/cuda/cuda_model.h"
#include "engine/decoder/cuda/cuda_pass.h"
#include "engine/decoder/cuda/memory_plan.h"
#include "engine/decoder/cuda/step_inputs.h"
#include "engine/kernels/cuda/device.h"

namespace assay::engine::cuda {

class CudaRank {
 public:
  struct Options {
    int device = 0;
    CudaDecoder::Limits limits;
    int max_num_seqs = 0;         // more blocks than these need are not wanted
    int64_t kv_cache_bytes = 0;   // at most; 0: what the device has left
    int64_t max_forward_len = 0;  // tokens that Forward's own cache is planned for
    int64_t swap_bytes = 0;       // of host memory for copies of blocks, at most
    int64_t communicator_bytes = 0;
    int num_ranks_on_device = 1;
  };

  // Looks at the device and divides its memory, of which it takes none yet. `model_plan` outlives
  // the rank. Errors as LoadCudaRunner.
  static absl::StatusOr<std::unique_ptr<CudaRank>> Plan(const CudaModelPlan* model_plan,
                                                        const Options& options);
  const MemoryPlan& memory_plan() const { return memory_plan_; }

  // Loads the weights and takes a cache of `num_blocks`, at most the plan's. `communicator`
  // outlives the rank; null for one GPU that has the whole model.
  absl::Status Load(int64_t num_blocks, Communicator* communicator);

  // Behind Load, the decode steps of every number of rows that may come: run once on idle rows,
  // since kernels are loaded at their first launch, which a capture does not allow; then captured.
  // In a gang all ranks have run before one captures: a device that captures may wait for itself,
  // and with that for the others.
  absl::Status WarmUp();
  absl::Status CaptureGraphs();

  int64_t num_blocks() const { return cache_.num_blocks; }
  int64_t memory_bytes() const { return memory_bytes_; }
  int64_t block_bytes() const { return cache_.block_bytes(); }
  // Of the weights that a pass reads: all but an embedding table that is no head.
  int64_t weight_bytes_read() const;
  CudaPass::Limits pass_limits() const;

  ~CudaRank();

  // Begins a pass behind those launched before, of which one may be in flight. The pass is not
  // needed when this returns. Ids that the pass before drew, or is about to, are read where they
  // are on the device.
  absl::Status Launch(const CudaPass& pass);

  // Waits for the oldest pass in flight: the drawn ids in the order of its `sampled`, valid until
  // the next call.
  absl::StatusOr<std::span<const int32_t>> Collect();

  // Copies of blocks to host memory and back, between the passes launched before and after.
  int64_t num_host_blocks() const { return swap_->num_host_blocks(); }
  absl::Status CopyToHost(std::span<const BlockCopy> copies) { return swap_->CopyToHost(copies); }
  absl::Status CopyFromHost(std::span<const BlockCopy> copies) {
    return swap_->CopyFromHost(copies);
  }

  // logits [ids, vocab_size] of a sequence outside the cache, with nothing in flight; the ids are
  // in the vocabulary. Empty logits: they are computed, but not copied. Between PrepareForward,
  // which takes memory, and EndForward, which gives it back: in a gang when all ranks are idle.
  // RESOURCE_EXHAUSTED for more tokens than were planned for, where the device has no room left.
  absl::Status PrepareForward(int64_t num_tokens);
  absl::Status Forward(std::span<const int32_t> ids, std::span<float> logits);
  absl::Status EndForward();

  // Of all collected passes, by the device's clock.
  absl::Duration device_time() const { return device_time_; }

 private:
  // A launched pass: where its ids arrive, and when.
  struct InFlight {
    Event start;
    Event end;
    PinnedBuffer<int32_t> ids;
    std::vector<int> places;  // of the draws among the ids
  };

  CudaRank(const CudaModelPlan* model_plan, const Options& options)
      : model_plan_(*model_plan), options_(options) {}

  // Launch's part between the two events, of which it records the first.
  absl::Status RunEagerly(const CudaPass& pass, const Event& start);
  absl::Status RunAsGraph(const CudaPass& pass, int graph_rows, const Event& start);
  // Numbers of rows, the largest first: it needs most. A step of max_num_seqs rows or fewer runs as
  // one of these.
  std::vector<int> GraphSizes() const;
  // One decode step of graph_rows rows with all inputs where the step inputs are.
  absl::Status LaunchDecode(int graph_rows);
  void FillRows(const CudaPass& pass);
  // Keys and values of random projections in every slot of the cache.
  absl::Status FillCacheRandomly();

  StepInputs::Limits InputLimits() const;
  CudaDecoder::Step DecoderStep(int num_rows, int num_decode_rows, int num_tiles) const;
  const ModelConfig& config() const { return model_plan_.shard.local; }

  const CudaModelPlan& model_plan_;
  const Options options_;
  MemoryPlan memory_plan_;
  Stream stream_;
  CudaModel model_;
  std::unique_ptr<CudaDecoder> decoder_;
  StepInputs inputs_;
  DeviceBuffer<uint8_t> cache_memory_;
  KvCache cache_;
  DeviceBuffer<uint8_t> forward_cache_memory_;
  KvCache forward_cache_;
  int64_t free_at_plan_ = 0;
  std::unique_ptr<BlockSwap> swap_;    // dies before the cache
  DeviceBuffer<int32_t> sampled_ids_;  // [max_sampled]
  InFlight in_flight_[2];              // the pass launched n-th is in n % 2
  int64_t num_launched_ = 0;
  int64_t num_collected_ = 0;
  std::vector<int32_t> drawn_;
  int64_t memory_bytes_ = 0;
  absl::Duration device_time_;
  std::map<int, Graph> graphs_;  // by rows; dies before what its kernels use
};

}  // namespace assay::engine::cuda
