#include "engine/decoder/cuda/cuda_runner.h"

#include <unistd.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "base/status.h"
#include "engine/decoder/cuda/cuda_gang.h"
#include "engine/decoder/cuda/cuda_pass.h"
#include "engine/decoder/cuda/cuda_rank.h"

namespace assay::engine {
namespace {

using namespace cuda;  // NOLINT: this file is the backend's door

// Rows whose logits scoring computes at once, so that the head is not read for each.
constexpr int kScoredRows = 64;

int64_t SwapBytes(const CudaRunnerOptions& options) {
  if (options.swap_bytes >= 0) return options.swap_bytes;
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE) / 4;
}

// Cuts steps into passes and has its ranks run them. A step is one pass as a rule, and then two may
// be in flight; one of several passes (more rows or sequences than a pass takes) is run alone, its
// ids going through the host.
class CudaRunner final : public ModelRunner {
 public:
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Load(const std::string& model_dir,
                                                           const CudaRunnerOptions& options);

  const ModelConfig& config() const override { return gang_->config(); }
  int64_t num_blocks() const override { return gang_->rank(0).num_blocks(); }
  int block_size() const override { return kKvPageTokens; }
  int64_t memory_bytes() const override { return gang_->memory_bytes(); }
  int64_t num_host_blocks() const override;
  absl::Status Launch(std::span<const BatchChunk> batch) override;
  absl::StatusOr<std::span<const int32_t>> Collect() override;
  absl::Status CopyToHost(std::span<const BlockCopy> copies) override {
    return gang_->ForEach([&](CudaRank& rank, int) { return rank.CopyToHost(copies); });
  }
  absl::Status CopyFromHost(std::span<const BlockCopy> copies) override {
    return gang_->ForEach([&](CudaRank& rank, int) { return rank.CopyFromHost(copies); });
  }
  absl::StatusOr<std::vector<float>> Forward(std::span<const int32_t> ids,
                                             ForwardObserver* observer) override;
  const RunnerTimes& times() const override { return times_; }

 private:
  CudaRunner() = default;

  // A launched step.
  struct InFlight {
    bool is_running = false;   // on the ranks; else its ids are here
    std::vector<int32_t> ids;  // of the passes that are done
    double weight_bytes = 0;   // read, as below
    double cache_bytes = 0;
    int64_t tokens = 0;
    int64_t prompt_tokens = 0;
  };

  // Launches the pass that was put together for the step; the ids of draws that are known take
  // their places in it.
  absl::Status LaunchPass();
  // Waits for the step's pass.
  absl::Status TakeIds(InFlight* step);
  // Waits for all that runs.
  absl::Status Wait();

  int64_t max_model_len_ = 0;
  std::unique_ptr<CudaGang> gang_;
  double weight_bytes_ = 0;    // read by a pass, of all ranks
  double kv_token_bytes_ = 0;  // of the cache, likewise
  RunnerTimes times_;
  CudaPass pass_;
  std::deque<InFlight> in_flight_;  // oldest first
  std::vector<int32_t> collected_;
};

absl::StatusOr<std::unique_ptr<ModelRunner>> CudaRunner::Load(const std::string& model_dir,
                                                              const CudaRunnerOptions& options) {
  std::unique_ptr<CudaRunner> runner(new CudaRunner);
  runner->max_model_len_ = options.max_model_len;
  if (options.max_model_len == 0) {
    ASSAY_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(model_dir));
    runner->max_model_len_ = config.max_position_embeddings;
  }
  // Graphs round the number of rows up.
  const int lanes = std::max(options.max_num_seqs, GraphRowsFor(options.max_num_seqs));
  CudaRunnerOptions gang_options = options;
  gang_options.swap_bytes = SwapBytes(options);
  const int max_rows = std::max(options.prefill_chunk, 0) + lanes;
  const int scored_rows = options.max_forward_len > 0 ? std::min(kScoredRows, max_rows) : 0;
  ASSAY_ASSIGN_OR_RETURN(runner->gang_, CudaGang::Load(model_dir, gang_options,
                                                       {.max_rows = max_rows,
                                                        .max_decode_rows = lanes,
                                                        .max_sampled = std::max(lanes, scored_rows),
                                                        .max_model_len = runner->max_model_len_}));
  for (int number = 0; number < runner->gang_->size(); ++number) {
    const CudaRank& rank = runner->gang_->rank(number);
    runner->weight_bytes_ += static_cast<double>(rank.weight_bytes_read());
    runner->kv_token_bytes_ += static_cast<double>(rank.block_bytes()) / runner->block_size();
  }
  return std::unique_ptr<ModelRunner>(std::move(runner));
}

absl::Status CudaRunner::Launch(std::span<const BatchChunk> batch) {
  ASSAY_CHECK(std::ssize(in_flight_) < kMaxInFlight, "{} steps in flight", in_flight_.size());
  InFlight step;
  int num_passes = 1;
  pass_.Clear();
  for (const BatchChunk& chunk : batch) {
    const auto num_tokens = static_cast<int64_t>(chunk.tokens.size());
    step.tokens += num_tokens;
    step.prompt_tokens += chunk.num_prompt_tokens();
    step.cache_bytes += static_cast<double>(chunk.first_position + num_tokens) * kv_token_bytes_;
    for (int64_t num_done = 0; num_done < num_tokens;) {
      pass_.Add(chunk, gang_->rank(0).pass_limits(), &num_done);
      if (num_done == num_tokens) break;
      ++num_passes;  // full
      ASSAY_RETURN_IF_ERROR(Wait());
      ASSAY_RETURN_IF_ERROR(LaunchPass());
      ASSAY_RETURN_IF_ERROR(TakeIds(&step));
    }
  }
  ASSAY_RETURN_IF_ERROR(LaunchPass());
  step.is_running = true;
  if (num_passes > 1) ASSAY_RETURN_IF_ERROR(TakeIds(&step));
  step.weight_bytes = num_passes * weight_bytes_;
  in_flight_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status CudaRunner::LaunchPass() {
  if (in_flight_.empty() || !in_flight_.back().is_running) {
    pass_.SetDrawnIds(in_flight_.empty() ? collected_ : in_flight_.back().ids);
  }
  ASSAY_RETURN_IF_ERROR(gang_->ForEach([&](CudaRank& rank, int) { return rank.Launch(pass_); }));
  pass_.Clear();
  return absl::OkStatus();
}

absl::Status CudaRunner::TakeIds(InFlight* step) {
  std::vector<std::span<const int32_t>> of_ranks(static_cast<size_t>(gang_->size()));
  ASSAY_RETURN_IF_ERROR(gang_->ForEach([&](CudaRank& rank, int number) -> absl::Status {
    ASSAY_ASSIGN_OR_RETURN(of_ranks[static_cast<size_t>(number)], rank.Collect());
    return absl::OkStatus();
  }));
  const std::span<const int32_t> drawn = of_ranks[0];
  for (size_t number = 1; number < of_ranks.size(); ++number) {
    if (std::ranges::equal(of_ranks[number], drawn)) continue;
    return Internal("rank {} has drawn other ids than rank 0 from the same logits", number);
  }
  step->ids.insert(step->ids.end(), drawn.begin(), drawn.end());
  step->is_running = false;
  return absl::OkStatus();
}

absl::Status CudaRunner::Wait() {
  for (InFlight& step : in_flight_) {
    if (step.is_running) ASSAY_RETURN_IF_ERROR(TakeIds(&step));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const int32_t>> CudaRunner::Collect() {
  ASSAY_CHECK(!in_flight_.empty(), "no step in flight");
  InFlight& step = in_flight_.front();
  if (step.is_running) ASSAY_RETURN_IF_ERROR(TakeIds(&step));
  collected_ = std::move(step.ids);
  times_.device = gang_->rank(0).device_time();
  times_.bytes_read += step.weight_bytes + step.cache_bytes;
  times_.cache_bytes_read += step.cache_bytes;
  times_.tokens += step.tokens;
  times_.prompt_tokens += step.prompt_tokens;
  in_flight_.pop_front();
  return std::span<const int32_t>(collected_);
}

// Every rank copies its part of a block, and their memories grow each at its own pace.
int64_t CudaRunner::num_host_blocks() const {
  int64_t num_blocks = gang_->rank(0).num_host_blocks();
  for (int number = 1; number < gang_->size(); ++number) {
    num_blocks = std::min(num_blocks, gang_->rank(number).num_host_blocks());
  }
  return num_blocks;
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
  if (ids.empty()) return logits;
  ASSAY_RETURN_IF_ERROR(
      gang_->ForEach([&](CudaRank& rank, int) { return rank.PrepareForward(std::ssize(ids)); }));
  ASSAY_RETURN_IF_ERROR(gang_->ForEach([&](CudaRank& rank, int number) {
    return rank.Forward(ids, number == 0 ? std::span(logits) : std::span<float>());
  }));
  ASSAY_RETURN_IF_ERROR(gang_->ForEach([](CudaRank& rank, int) { return rank.EndForward(); }));
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
