#include "engine/runtime/engine.h"

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

#include "base/numerics_version.h"
#include "base/status.h"
#include "engine/decoder/cpu/cpu_model.h"
#include "engine/decoder/cpu/cpu_runner.h"
#include "engine/decoder/cuda/cuda_runner.h"
#include "engine/decoder/model_runner.h"
#include "engine/scheduler/scheduler.h"

namespace assay::engine {
namespace {

// Where kv_cache_bytes is left to us. Memory is taken as it is touched, so this is a bound.
constexpr int64_t kDefaultCacheBytes = int64_t{2} << 30;

// A step with prompts is no graph, has an attention kernel more in each layer, and its rows beyond
// 256 begin another tile of the products.
constexpr double kCudaPromptStepCost = 0.1;

bool IsCuda(const std::string& device) { return device.starts_with("cuda"); }

double PromptStepCost(const EngineOptions& options) {
  if (options.prompt_step_cost >= 0) return options.prompt_step_cost;
  return IsCuda(options.device) ? kCudaPromptStepCost : 0;
}

int LookAhead(const EngineOptions& options) {
  if (options.look_ahead >= 0) return options.look_ahead;
  return IsCuda(options.device) ? 1 : 0;
}

int PrefillChunk(const EngineOptions& options) {
  if (options.prefill_chunk > 0) return options.prefill_chunk;
  return IsCuda(options.device) ? 2048 : 256;
}

// Scheduler above, a backend below; knows neither requests' rules nor tensors.
class EngineImpl final : public Engine {
 public:
  EngineImpl(std::unique_ptr<ModelRunner> runner, const EngineOptions& options,
             int64_t max_model_len)
      : clock_(options.clock),
        max_model_len_(max_model_len),
        look_ahead_(LookAhead(options)),
        runner_(std::move(runner)),
        scheduler_({.max_num_seqs = options.max_num_seqs,
                    .max_model_len = max_model_len,
                    .prefill_chunk = PrefillChunk(options),
                    .vocab_size = runner_->config().vocab_size,
                    .num_blocks = runner_->num_blocks(),
                    .block_size = runner_->block_size(),
                    .prompt_step_cost = PromptStepCost(options)}) {}

  const ModelConfig& config() const override { return runner_->config(); }
  int64_t max_model_len() const override { return max_model_len_; }

  void Submit(GenerationRequest request) override {
    scheduler_.Submit(std::move(request), clock_->Monotonic());
  }
  bool Cancel(int64_t id) override { return scheduler_.Cancel(id); }
  bool idle() const override { return scheduler_.idle(); }

  absl::StatusOr<std::vector<GenerationResult>> Step() override;
  EngineStats stats() const override;
  std::vector<std::pair<int64_t, int64_t>> progress() const override {
    return scheduler_.Progress();
  }
  std::vector<int32_t> OutputIds(int64_t id) const override { return scheduler_.OutputIds(id); }
  absl::StatusOr<std::vector<float>> Forward(std::span<const int32_t> ids,
                                             ForwardObserver* observer) override {
    while (num_in_flight_ > 0) ASSAY_RETURN_IF_ERROR(CollectStep());
    return runner_->Forward(ids, observer);
  }

 private:
  // Launches the planned step.
  absl::Status LaunchStep(std::span<const Scheduler::Chunk> plan);
  // Waits for the oldest step in flight.
  absl::Status CollectStep();

  const Clock* const clock_;
  const int64_t max_model_len_;
  const int look_ahead_;
  const std::unique_ptr<ModelRunner> runner_;
  Scheduler scheduler_;
  int num_in_flight_ = 0;
  absl::Duration total_time_;
  std::vector<BatchChunk> batch_;
};

absl::StatusOr<std::vector<GenerationResult>> EngineImpl::Step() {
  const absl::Duration start = clock_->Monotonic();
  scheduler_.SetHostBlocks(runner_->num_host_blocks());
  const std::span<const Scheduler::Chunk> plan = scheduler_.PlanStep(start);
  if (!scheduler_.copies_out().empty()) {
    ASSAY_RETURN_IF_ERROR(runner_->CopyToHost(scheduler_.copies_out()));
  }
  if (!scheduler_.copies_in().empty()) {
    ASSAY_RETURN_IF_ERROR(runner_->CopyFromHost(scheduler_.copies_in()));
  }
  if (!plan.empty()) ASSAY_RETURN_IF_ERROR(LaunchStep(plan));
  if (num_in_flight_ > (plan.empty() ? 0 : look_ahead_)) {
    ASSAY_RETURN_IF_ERROR(CollectStep());
    total_time_ += clock_->Monotonic() - start;
  }
  return scheduler_.TakeFinished();
}

absl::Status EngineImpl::LaunchStep(std::span<const Scheduler::Chunk> plan) {
  // Stands for an id that is not known yet.
  static constexpr int32_t kToBeDrawn = 0;
  batch_.clear();
  for (const Scheduler::Chunk& chunk : plan) {
    const Sequence& sequence = *chunk.sequence;
    std::span<const int32_t> tokens(&kToBeDrawn, 1);
    if (chunk.previous_draw < 0) {
      tokens = std::span(sequence.tokens).subspan(chunk.first_position, chunk.num_tokens);
    }
    batch_.push_back({.tokens = tokens,
                      .previous_draw = chunk.previous_draw,
                      .first_position = chunk.first_position,
                      .block_table = sequence.block_table,
                      .prompt_len = sequence.prompt_len(),
                      .samples = chunk.samples,
                      .sampling = sequence.request.sampling,
                      .output_position = static_cast<uint64_t>(chunk.output_position)});
  }
  ASSAY_RETURN_IF_ERROR(runner_->Launch(batch_));
  ++num_in_flight_;
  return absl::OkStatus();
}

absl::Status EngineImpl::CollectStep() {
  ASSAY_ASSIGN_OR_RETURN(const std::span<const int32_t> drawn, runner_->Collect());
  --num_in_flight_;
  scheduler_.CompleteStep(drawn, clock_->Monotonic());
  return absl::OkStatus();
}

EngineStats EngineImpl::stats() const {
  EngineStats stats;
  stats.tokens_generated = scheduler_.num_output_tokens();
  stats.prompt_tokens = scheduler_.num_prompt_tokens();
  stats.num_running = scheduler_.num_running();
  stats.num_waiting = scheduler_.num_waiting();
  stats.kv_blocks_total = scheduler_.blocks().num_blocks();
  stats.kv_blocks_used = scheduler_.blocks().num_used();
  stats.memory_bytes = runner_->memory_bytes();
  stats.num_preemptions = scheduler_.num_preemptions();
  stats.num_swaps = scheduler_.num_swaps();
  stats.matmul_time = runner_->times().matmul;
  stats.attention_time = runner_->times().attention;
  stats.sampling_time = runner_->times().sampling;
  stats.total_time = total_time_;
  stats.device_time = runner_->times().device;
  stats.bytes_read = runner_->times().bytes_read;
  stats.cache_bytes_read = runner_->times().cache_bytes_read;
  stats.tokens_computed = runner_->times().tokens;
  stats.prompt_tokens_computed = runner_->times().prompt_tokens;
  return stats;
}

absl::Status CheckOptions(const EngineOptions& options) {
  if (options.max_num_seqs < 1 || options.prefill_chunk < 0) {
    return InvalidArgument(
        "max_num_seqs is {} and must be at least 1; prefill_chunk {}, at least 0",
        options.max_num_seqs, options.prefill_chunk);
  }
  if (options.look_ahead < -1 || options.look_ahead > 1 || options.swap_bytes < -1) {
    return InvalidArgument("look_ahead is {}, must be 0, 1 or -1; swap_bytes {}, at least -1",
                           options.look_ahead, options.swap_bytes);
  }
  if (options.max_model_len < 0 || options.kv_cache_bytes < 0 || options.max_forward_len < 0) {
    return InvalidArgument(
        "max_model_len is {}, kv_cache_bytes {} and max_forward_len {}, none may be negative",
        options.max_model_len, options.kv_cache_bytes, options.max_forward_len);
  }
  return absl::OkStatus();
}

// The GPUs of "cuda", "cuda:1" and "cuda:0,1"; INVALID_ARGUMENT for anything else but "cpu".
absl::StatusOr<std::vector<int>> CudaDevices(const std::string& device) {
  if (device == "cuda") return std::vector<int>{0};
  std::vector<int> ordinals;
  const char* const end = device.data() + device.size();
  const char* at = device.data() + std::min(device.size(), sizeof("cuda:") - 1);
  while (device.starts_with("cuda:")) {
    int ordinal = 0;
    const auto [stop, error] = std::from_chars(at, end, ordinal);
    if (error != std::errc() || ordinal < 0 || (stop != end && *stop != ',')) break;
    ordinals.push_back(ordinal);
    if (stop == end) return ordinals;
    at = stop + 1;
  }
  return InvalidArgument("device is '{}', must be cpu, cuda, cuda:N or cuda:N,M,...", device);
}

absl::StatusOr<std::unique_ptr<ModelRunner>> LoadOnCpu(const std::string& model_dir,
                                                       const EngineOptions& options,
                                                       int64_t max_model_len) {
  if (options.random_weights) {
    return InvalidArgument("random weights are for device cuda; the CPU backend has none");
  }
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<CpuModel> model, LoadCpuModel(model_dir));
  CpuRunner::Options runner_options;
  runner_options.num_threads = options.num_threads;
  runner_options.block_size = options.block_size;
  runner_options.cache_tokens = options.max_num_seqs * (max_model_len + options.block_size - 1);
  runner_options.kv_cache_bytes =
      options.kv_cache_bytes == 0 ? kDefaultCacheBytes : options.kv_cache_bytes;
  runner_options.swap_bytes = std::max<int64_t>(options.swap_bytes, 0);
  runner_options.round_activations_to_bf16 = options.round_activations_to_bf16;
  runner_options.clock = options.clock;
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<CpuRunner> runner,
                         CpuRunner::Load(std::move(model), runner_options));
  const int64_t capacity = runner->num_blocks() * options.block_size;
  if (capacity < max_model_len) {
    return ResourceExhausted(
        "a KV cache of {} bytes holds {} tokens, but one sequence may have {}; raise "
        "kv_cache_bytes or lower max_model_len",
        runner_options.kv_cache_bytes, capacity, max_model_len);
  }
  return std::unique_ptr<ModelRunner>(std::move(runner));
}

absl::StatusOr<std::unique_ptr<ModelRunner>> LoadOnCuda(const std::string& model_dir,
                                                        const EngineOptions& options,
                                                        int64_t max_model_len) {
  ASSAY_ASSIGN_OR_RETURN(const std::vector<int> devices, CudaDevices(options.device));
  return LoadCudaRunner(model_dir, {.devices = devices,
                                    .max_num_seqs = options.max_num_seqs,
                                    .prefill_chunk = PrefillChunk(options),
                                    .max_model_len = max_model_len,
                                    .kv_cache_bytes = options.kv_cache_bytes,
                                    .max_forward_len = options.max_forward_len,
                                    .swap_bytes = options.swap_bytes,
                                    .random_weights = options.random_weights});
}

}  // namespace

std::string NumericsVersion(const std::string& device) {
  return IsCuda(device) ? kCudaNumericsVersion : kCpuNumericsVersion;
}

std::string DeviceName(const std::string& device) {
  const absl::StatusOr<std::vector<int>> ordinals = CudaDevices(device);
  return ordinals.ok() ? CudaDeviceName(ordinals->front()).value_or(device) : device;
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Load(const std::string& model_dir,
                                                     const EngineOptions& options) {
  ASSAY_RETURN_IF_ERROR(CheckOptions(options));
  ASSAY_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(model_dir));
  const int64_t max_positions = config.max_position_embeddings;
  const int64_t max_model_len = options.max_model_len == 0 ? max_positions : options.max_model_len;
  if (max_model_len > max_positions) {
    return InvalidArgument("max_model_len is {}, but {} was made for {} positions", max_model_len,
                           model_dir, max_positions);
  }
  auto runner = options.device == "cpu" ? LoadOnCpu(model_dir, options, max_model_len)
                                        : LoadOnCuda(model_dir, options, max_model_len);
  ASSAY_RETURN_IF_ERROR(runner.status());
  return std::unique_ptr<Engine>(
      std::make_unique<EngineImpl>(*std::move(runner), options, max_model_len));
}

}  // namespace assay::engine
