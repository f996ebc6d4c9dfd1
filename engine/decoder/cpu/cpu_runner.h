// The CPU backend behind ModelRunner: decoder, paged cache and sampler in this process. A launched
// step is done when Launch returns.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/decoder/cpu/cpu_decoder.h"
#include "engine/decoder/cpu/cpu_model.h"
#include "engine/decoder/cpu/lap_timer.h"
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
    int64_t swap_bytes = 0;  // for copies of blocks
    bool round_activations_to_bf16 = false;
    const Clock* clock = nullptr;
  };

  static absl::StatusOr<std::unique_ptr<CpuRunner>> Load(std::unique_ptr<CpuModel> model,
                                                         const Options& options);

  const ModelConfig& config() const override { return model_->config; }
  int64_t num_blocks() const override { return cache_.num_blocks(); }
  int block_size() const override { return cache_.shape().block_size; }
  int64_t memory_bytes() const override;
  int64_t num_host_blocks() const override { return num_host_blocks_; }
  absl::Status Launch(std::span<const BatchChunk> batch) override;
  absl::StatusOr<std::span<const int32_t>> Collect() override;
  absl::Status CopyToHost(std::span<const BlockCopy> copies) override;
  absl::Status CopyFromHost(std::span<const BlockCopy> copies) override;
  absl::StatusOr<std::vector<float>> Forward(std::span<const int32_t> ids,
                                             ForwardObserver* observer) override;
  const RunnerTimes& times() const override { return times_; }

 private:
  CpuRunner(std::unique_ptr<CpuModel> model, const Options& options, int64_t num_blocks);

  // The ids of a step and the rows that give them, from the rows of decoder_.
  void SampleRows(std::vector<int32_t>* drawn);

  const std::unique_ptr<CpuModel> model_;
  cpu::ThreadPool pool_;
  LapTimer timer_;
  RunnerTimes times_;
  cpu::PagedKv cache_;
  const int64_t num_host_blocks_;
  std::vector<std::vector<float>> host_blocks_;  // as far as they were used
  cpu::Attention attention_;
  CpuDecoder decoder_;

  CpuDecoder::Rows rows_;
  std::vector<int> sampled_rows_;
  std::vector<const BatchChunk*> sampled_chunks_;
  cpu::AlignedBuffer logits_;                   // [sampled rows, vocab]
  std::vector<Sampler> samplers_;               // by worker
  std::deque<std::vector<int32_t>> in_flight_;  // drawn ids, oldest step first
  std::vector<int32_t> last_drawn_;             // by the step launched last
  std::vector<int32_t> collected_;
};

}  // namespace assay::engine
