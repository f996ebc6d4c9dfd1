// The CPU backend behind ModelRunner: decoder, paged cache and sampler in this process.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/decoder/cpu_decoder.h"
#include "engine/decoder/cpu_model.h"
#include "engine/decoder/lap_timer.h"
#include "engine/decoder/model_runner.h"
#include "engine/kernels/cpu/attention.h"
#include "engine/kernels/cpu/paged_kv.h"
#include "engine/kernels/cpu/thread_pool.h"
#include "engine/sampling/sampler.h"

namespace assay::engine {

class CpuRunner final : public ModelRunner {
 public:
  struct Options {
    int num_threads = 1;
    int block_size = 16;       // a multiple of 16
    int64_t cache_tokens = 0;  // wanted; as many blocks as kv_cache_bytes hold of it
    int64_t kv_cache_bytes = 0;
    bool round_activations_to_bf16 = false;
    const Clock* clock = nullptr;
  };

  static absl::StatusOr<std::unique_ptr<CpuRunner>> Load(std::unique_ptr<CpuModel> model,
                                                         const Options& options);

  const ModelConfig& config() const override { return model_->config; }
  int64_t num_blocks() const override { return cache_.num_blocks(); }
  int block_size() const override { return cache_.shape().block_size; }
  int64_t memory_bytes() const override;
  absl::StatusOr<std::span<const int32_t>> Step(std::span<const BatchChunk> batch) override;
  absl::StatusOr<std::vector<float>> Forward(std::span<const int32_t> ids,
                                             ForwardObserver* observer) override;
  const RunnerTimes& times() const override { return times_; }

 private:
  CpuRunner(std::unique_ptr<CpuModel> model, const Options& options, int64_t num_blocks);

  const std::unique_ptr<CpuModel> model_;
  cpu::ThreadPool pool_;
  LapTimer timer_;
  RunnerTimes times_;
  cpu::PagedKv cache_;
  cpu::Attention attention_;
  CpuDecoder decoder_;

  CpuDecoder::Rows rows_;
  std::vector<int> sampled_rows_;
  std::vector<const BatchChunk*> sampled_chunks_;
  cpu::AlignedBuffer logits_;      // [sampled rows, vocab]
  std::vector<Sampler> samplers_;  // by worker
  std::vector<int32_t> sampled_;
};

}  // namespace assay::engine
