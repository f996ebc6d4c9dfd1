#include "engine/decoder/cuda_runner.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "engine/decoder/cuda_model.h"
#include "engine/decoder/cuda_pass.h"
#include "engine/decoder/cuda_rank.h"

namespace assay::engine {
namespace {

using namespace cuda;  // NOLINT: this file is the backend's door

// Cuts steps into passes and has its rank run them.
class CudaRunner final : public ModelRunner {
 public:
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Load(const std::string& model_dir,
                                                           const CudaRunnerOptions& options);

  const ModelConfig& config() const override { return model_plan_.shard.whole; }
  int64_t num_blocks() const override { return rank_->num_blocks(); }
  int block_size() const override { return kKvPageTokens; }
  int64_t memory_bytes() const override { return rank_->memory_bytes(); }
  absl::StatusOr<std::span<const int32_t>> Step(std::span<const BatchChunk> batch) override;
  absl::StatusOr<std::vector<float>> Forward(std::span<const int32_t> ids,
                                             ForwardObserver* observer) override;
  const RunnerTimes& times() const override { return times_; }

 private:
  CudaRunner() = default;

  // Runs the pass that was put together, if any, and takes its ids.
  absl::Status RunPass();

  CudaModelPlan model_plan_;
  int64_t max_model_len_ = 0;
  std::unique_ptr<CudaRank> rank_;
  RunnerTimes times_;
  CudaPass pass_;
  std::vector<int32_t> sampled_;
};

absl::StatusOr<std::unique_ptr<ModelRunner>> CudaRunner::Load(const std::string& model_dir,
                                                              const CudaRunnerOptions& options) {
  std::unique_ptr<CudaRunner> runner(new CudaRunner);
  ASSAY_ASSIGN_OR_RETURN(runner->model_plan_,
                         PlanCudaModel(model_dir, options.random_weights, /*rank=*/0, /*size=*/1));
  runner->max_model_len_ =
      options.max_model_len == 0 ? runner->config().max_position_embeddings : options.max_model_len;
  // Graphs round the number of rows up.
  const int lanes = std::max(options.max_num_seqs, GraphRowsFor(options.max_num_seqs));
  ASSAY_ASSIGN_OR_RETURN(
      runner->rank_,
      CudaRank::Plan(&runner->model_plan_,
                     {.device = options.device,
                      .limits = {.max_rows = std::max(options.prefill_chunk, 0) + lanes,
                                 .max_decode_rows = lanes,
                                 .max_sampled = lanes,
                                 .max_model_len = runner->max_model_len_},
                      .max_num_seqs = options.max_num_seqs,
                      .kv_cache_bytes = options.kv_cache_bytes}));
  ASSAY_RETURN_IF_ERROR(runner->rank_->Load(runner->rank_->memory_plan().num_blocks));
  return std::unique_ptr<ModelRunner>(std::move(runner));
}

absl::StatusOr<std::span<const int32_t>> CudaRunner::Step(std::span<const BatchChunk> batch) {
  sampled_.clear();
  pass_.Clear();
  for (const BatchChunk& chunk : batch) {
    const auto num_tokens = static_cast<int64_t>(chunk.tokens.size());
    for (int64_t num_done = 0; num_done < num_tokens;) {
      pass_.Add(chunk, rank_->pass_limits(), &num_done);
      if (num_done == num_tokens) break;
      ASSAY_RETURN_IF_ERROR(RunPass());  // full
    }
  }
  ASSAY_RETURN_IF_ERROR(RunPass());
  return std::span<const int32_t>(sampled_);
}

absl::Status CudaRunner::RunPass() {
  if (pass_.num_rows() == 0) return absl::OkStatus();
  ASSAY_ASSIGN_OR_RETURN(const std::span<const int32_t> drawn, rank_->Run(pass_));
  sampled_.insert(sampled_.end(), drawn.begin(), drawn.end());
  times_.device = rank_->device_time();
  pass_.Clear();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> CudaRunner::Forward(std::span<const int32_t> ids,
                                                       ForwardObserver* observer) {
  if (observer != nullptr) {
    return Unimplemented("the CUDA backend shows no activations: calibrate with --device cpu");
  }
  if (static_cast<int64_t>(ids.size()) > max_model_len_) {
    return InvalidArgument("{} tokens are more than max_model_len {}", ids.size(), max_model_len_);
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= config().vocab_size) {
      return InvalidArgument("token id {} is not in the vocabulary of {}", id, config().vocab_size);
    }
  }
  std::vector<float> logits(ids.size() * static_cast<size_t>(config().vocab_size));
  if (!ids.empty()) ASSAY_RETURN_IF_ERROR(rank_->Forward(ids, logits));
  return logits;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> LoadCudaRunner(const std::string& model_dir,
                                                            const CudaRunnerOptions& options) {
  return CudaRunner::Load(model_dir, options);
}

absl::StatusOr<std::string> CudaDeviceName(int device) {
  ASSAY_ASSIGN_OR_RETURN(const DeviceProperties properties, UseDevice(device));
  return properties.name;
}

}  // namespace assay::engine
