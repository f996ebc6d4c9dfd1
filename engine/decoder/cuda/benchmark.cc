#include "engine/decoder/cuda/benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include "base/status.h"
#include "engine/decoder/cuda/attention_benchmark.h"
#include "engine/decoder/cuda/cuda_model.h"
#include "engine/decoder/cuda/cuda_runner.h"
#include "engine/decoder/cuda/gang_benchmark.h"
#include "engine/decoder/cuda/linears_benchmark.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/kv_pages.h"
#include "engine/kernels/cuda/random_fill.h"
#include "engine/kernels/cuda/sample.h"
#include "engine/model/linears.h"
#include "engine/parallel/sharding.h"
#include "engine/quant/description.h"

namespace assay::engine {
namespace {

using namespace cuda;  // NOLINT: this file belongs to the backend

constexpr SamplingParams kSampling = {.temperature = 0.6f, .top_p = 0.95f, .seed = 7};
constexpr int64_t kPromptTokens = 2048;

// Messages of 8 KB to 4 MB for most hidden sizes.
constexpr int kAllReduceRows[] = {1, 4, 16, 32, 64, 128, 256, 512};

// What has to be moved and computed by each GPU, from the shapes alone.
struct Costs {
  double weight_bytes = 0;  // linears and head, read once a step
  double linear_flops = 0;  // a token, without the head
  double head_flops = 0;
  double kv_bytes_per_token = 0;
  double attention_flops_per_pair = 0;  // query and key
};

// `plan`: of the first of num_gpus ranks.
absl::StatusOr<Costs> CostsOf(const CudaModelPlan& plan, int num_gpus) {
  const ShardPlan& shard = plan.shard;
  const ModelConfig& config = shard.whole;
  const QuantDescription& description = plan.description;
  ASSAY_ASSIGN_OR_RETURN(
      const KvPageLayout layout,
      MakeKvPageLayout(description.k_cache, description.v_cache, config.head_dim));
  double parameters = 0;
  for (const LinearInfo& info : QuantizableLinears(config)) {
    parameters += static_cast<double>(info.out_features) * info.in_features;
  }
  const double head = static_cast<double>(config.vocab_size) * config.hidden_size / num_gpus;
  parameters /= num_gpus;
  return Costs{.weight_bytes = static_cast<double>(plan.linear_bytes) + 2 * head,
               .linear_flops = 2 * parameters,
               .head_flops = 2 * head,
               .kv_bytes_per_token = static_cast<double>(layout.page_bytes()) / kKvPageTokens *
                                     shard.local.num_kv_heads * config.num_layers,
               .attention_flops_per_pair = 4.0 * shard.local.q_size() * config.num_layers};
}

// Microseconds of one body() on the device's clock, after one for nothing.
template <typename Body>
absl::StatusOr<double> TimeOnDevice(cudaStream_t stream, int repeats, const Body& body) {
  ASSAY_ASSIGN_OR_RETURN(const Event start, MakeEvent());
  ASSAY_ASSIGN_OR_RETURN(const Event end, MakeEvent());
  ASSAY_RETURN_IF_ERROR(body());
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(start.get(), stream));
  for (int i = 0; i < repeats; ++i) ASSAY_RETURN_IF_ERROR(body());
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(end.get(), stream));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end.get()));
  ASSAY_ASSIGN_OR_RETURN(const float milliseconds, ElapsedMs(start, end));
  return double{milliseconds} * 1000 / repeats;
}

absl::StatusOr<BenchmarkRow> MeasureCopy() {
  constexpr int64_t kBytes = int64_t{2} << 30;
  ASSAY_ASSIGN_OR_RETURN(const Stream stream, MakeStream());
  ASSAY_ASSIGN_OR_RETURN(const auto from, DeviceBuffer<uint8_t>::Allocate(kBytes));
  ASSAY_ASSIGN_OR_RETURN(const auto to, DeviceBuffer<uint8_t>::Allocate(kBytes));
  ASSAY_RETURN_IF_ERROR(FillRandomBytes(from.data(), kBytes, 1, stream.get()));
  ASSAY_ASSIGN_OR_RETURN(
      const double microseconds, TimeOnDevice(stream.get(), 10, [&] {
        return CudaStatus(
            cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream.get()),
            "cudaMemcpyAsync");
      }));
  return BenchmarkRow{.what = "copy",
                      .step_us = microseconds,
                      .device_us = microseconds,
                      .bytes = 2.0 * kBytes,
                      .copy_share = 1};
}

absl::StatusOr<BenchmarkRow> MeasureLinears(const CudaModelPlan& plan, int batch_size) {
  ASSAY_ASSIGN_OR_RETURN(const LinearsTiming timing, TimeLinears(plan, batch_size));
  double parameters = 0;
  for (const LinearInfo& info : QuantizableLinears(plan.shard.local)) {
    parameters += static_cast<double>(info.out_features) * info.in_features;
  }
  return BenchmarkRow{.what = "linears",
                      .batch_size = batch_size,
                      .step_us = timing.microseconds,
                      .device_us = timing.microseconds,
                      .bytes = timing.bytes,
                      .tflops = 2 * parameters / plan.shard.local.num_layers * batch_size /
                                timing.microseconds / 1e6};
}

absl::StatusOr<BenchmarkRow> MeasureAttention(const ModelConfig& config,
                                              const QuantDescription& description, int batch_size,
                                              int64_t context_len) {
  ASSAY_ASSIGN_OR_RETURN(const AttentionTiming timing,
                         TimeDecodeAttention(config, description, batch_size, context_len));
  return BenchmarkRow{.what = "attention",
                      .batch_size = batch_size,
                      .context_len = context_len,
                      .step_us = timing.microseconds,
                      .device_us = timing.microseconds,
                      .bytes = timing.bytes};
}

absl::StatusOr<BenchmarkRow> MeasureSampling(int batch_size, int vocab_size) {
  ASSAY_ASSIGN_OR_RETURN(const Stream stream, MakeStream());
  const int64_t size = int64_t{batch_size} * vocab_size;
  ASSAY_ASSIGN_OR_RETURN(const auto logits, DeviceBuffer<float>::Allocate(size));
  ASSAY_ASSIGN_OR_RETURN(const auto ids, DeviceBuffer<int32_t>::Allocate(batch_size));
  ASSAY_ASSIGN_OR_RETURN(const auto params, DeviceBuffer<RowSampling>::Allocate(batch_size));
  ASSAY_RETURN_IF_ERROR(FillRandom(logits.data(), size, 0, 2, 1, stream.get()));
  std::vector<RowSampling> rows(static_cast<size_t>(batch_size));
  for (int row = 0; row < batch_size; ++row) {
    rows[static_cast<size_t>(row)] = {.temperature = kSampling.temperature,
                                      .top_p = kSampling.top_p,
                                      .seed = static_cast<uint64_t>(row)};
  }
  ASSAY_RETURN_IF_ERROR(params.CopyFrom(rows, stream.get()));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream.get()));
  ASSAY_ASSIGN_OR_RETURN(const double microseconds, TimeOnDevice(stream.get(), 20, [&] {
                           return Sample({.logits = logits.data(),
                                          .params = params.data(),
                                          .ids = ids.data(),
                                          .num_rows = batch_size,
                                          .vocab_size = vocab_size},
                                         stream.get());
                         }));
  return BenchmarkRow{.what = "sampling",
                      .batch_size = batch_size,
                      .step_us = microseconds,
                      .device_us = microseconds,
                      .tokens_per_s = batch_size / microseconds * 1e6,
                      .bytes = 4.0 * static_cast<double>(size)};
}

// Sequences side by side in the cache.
std::vector<std::vector<int32_t>> BlockTables(int count, int64_t num_tokens) {
  const int64_t num_blocks = (num_tokens + kKvPageTokens - 1) / kKvPageTokens;
  std::vector<std::vector<int32_t>> tables(static_cast<size_t>(count));
  int32_t next = 0;
  for (std::vector<int32_t>& table : tables) {
    table.resize(static_cast<size_t>(num_blocks));
    std::iota(table.begin(), table.end(), next);
    next += static_cast<int32_t>(num_blocks);
  }
  return tables;
}

class RunnerBenchmark {
 public:
  RunnerBenchmark(ModelRunner* runner, const Costs& costs, const BenchmarkOptions& options)
      : runner_(runner), costs_(costs), options_(options) {}

  bool Fits(int count, int64_t num_tokens) const {
    return count * ((num_tokens + kKvPageTokens - 1) / kKvPageTokens) <= runner_->num_blocks();
  }

  // Every sequence adds its last token, at the same place each time.
  absl::StatusOr<BenchmarkRow> MeasureDecode(int batch_size, int64_t context_len) {
    const auto tables = BlockTables(batch_size, context_len);
    std::vector<int32_t> ids(static_cast<size_t>(batch_size));
    std::vector<BatchChunk> batch;
    for (size_t i = 0; i < tables.size(); ++i) {
      ids[i] = static_cast<int32_t>(i * 37 % static_cast<size_t>(runner_->config().vocab_size));
      batch.push_back({.tokens = {&ids[i], 1},
                       .first_position = context_len - 1,
                       .block_table = tables[i],
                       .prompt_len = 0,
                       .samples = true,
                       .sampling = kSampling,
                       .output_position = i});
    }
    ASSAY_ASSIGN_OR_RETURN(BenchmarkRow row, TimeSteps(batch, options_.max_steps));
    row.what = "decode";
    row.batch_size = batch_size;
    row.context_len = context_len;
    row.tokens_per_s = batch_size / row.step_us * 1e6;
    const double pairs = static_cast<double>(batch_size) * static_cast<double>(context_len);
    row.bytes = costs_.weight_bytes + pairs * costs_.kv_bytes_per_token;
    row.tflops = (batch_size * (costs_.linear_flops + costs_.head_flops) +
                  pairs * costs_.attention_flops_per_pair) /
                 row.step_us / 1e6;
    return row;
  }

  absl::StatusOr<BenchmarkRow> MeasurePrefill(int num_prompts, int64_t prompt_len) {
    const auto tables = BlockTables(num_prompts, prompt_len);
    std::vector<int32_t> ids(static_cast<size_t>(prompt_len));
    for (size_t i = 0; i < ids.size(); ++i) {
      ids[i] = static_cast<int32_t>(i * 37 % static_cast<size_t>(runner_->config().vocab_size));
    }
    std::vector<BatchChunk> batch;
    for (const std::vector<int32_t>& table : tables) {
      batch.push_back(
          {.tokens = ids, .block_table = table, .samples = true, .sampling = kSampling});
    }
    ASSAY_ASSIGN_OR_RETURN(BenchmarkRow row, TimeSteps(batch, 3));
    const double num_tokens = static_cast<double>(num_prompts) * static_cast<double>(prompt_len);
    row.what = "prefill";
    row.batch_size = num_prompts;
    row.context_len = prompt_len;
    row.tokens_per_s = num_tokens / row.step_us * 1e6;
    row.bytes = costs_.weight_bytes + num_tokens * costs_.kv_bytes_per_token;
    row.tflops =
        (num_tokens * costs_.linear_flops + num_prompts * costs_.head_flops +
         num_tokens * static_cast<double>(prompt_len) / 2 * costs_.attention_flops_per_pair) /
        row.step_us / 1e6;
    return row;
  }

 private:
  absl::StatusOr<BenchmarkRow> TimeSteps(const std::vector<BatchChunk>& batch, int num_steps) {
    ASSAY_RETURN_IF_ERROR(RunSteps(batch, 2));
    const absl::Duration device_start = runner_->times().device;
    const absl::Duration start = options_.clock->Monotonic();
    ASSAY_RETURN_IF_ERROR(RunSteps(batch, num_steps));
    const absl::Duration wall = options_.clock->Monotonic() - start;
    const absl::Duration device = runner_->times().device - device_start;
    return BenchmarkRow{.step_us = absl::ToDoubleMicroseconds(wall) / num_steps,
                        .device_us = absl::ToDoubleMicroseconds(device) / num_steps};
  }

  // As an engine does that looks ahead: each is launched before the one in front is collected.
  absl::Status RunSteps(const std::vector<BatchChunk>& batch, int num_steps) {
    for (int i = 0; i < num_steps; ++i) {
      ASSAY_RETURN_IF_ERROR(runner_->Launch(batch));
      if (i > 0) ASSAY_RETURN_IF_ERROR(runner_->Collect().status());
    }
    return runner_->Collect().status();
  }

  ModelRunner* const runner_;
  const Costs costs_;
  const BenchmarkOptions& options_;
};

absl::Status AddUnlessTooLarge(const absl::StatusOr<BenchmarkRow>& row, BenchmarkReport* report) {
  if (row.status().code() == absl::StatusCode::kResourceExhausted) return absl::OkStatus();
  ASSAY_RETURN_IF_ERROR(row.status());
  report->rows.push_back(*row);
  report->rows.back().copy_share = row->bytes / row->step_us * 1e6 / report->copy_bytes_per_s;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<double> MeasureCopyRate(int device) {
  ASSAY_RETURN_IF_ERROR(UseDevice(device).status());
  ASSAY_ASSIGN_OR_RETURN(const BenchmarkRow copy, MeasureCopy());
  return copy.bytes / copy.step_us * 1e6;
}

absl::StatusOr<BenchmarkReport> RunCudaBenchmark(const BenchmarkOptions& options) {
  if (options.batch_sizes.empty() || options.context_lens.empty() || options.max_steps < 1) {
    return InvalidArgument("a benchmark needs batch sizes, context lengths and steps");
  }
  const int num_gpus = static_cast<int>(options.devices.size());
  std::optional<RandomWeights> random_weights;
  if (options.random_weights) random_weights = {.bit_width = options.weight_bits};
  ASSAY_ASSIGN_OR_RETURN(const CudaModelPlan plan,
                         PlanCudaModel(options.model_dir, random_weights, 0, num_gpus));
  ASSAY_ASSIGN_OR_RETURN(const Costs costs, CostsOf(plan, num_gpus));
  ASSAY_ASSIGN_OR_RETURN(const DeviceProperties device, UseDevice(options.devices[0]));
  BenchmarkReport report;
  report.device = fmt::format("{}, {} multiprocessors", device.name, device.num_multiprocessors);
  if (options.devices.size() > 1) {
    report.device = fmt::format("{} x {}", options.devices.size(), report.device);
  }
  ASSAY_ASSIGN_OR_RETURN(const BenchmarkRow copy, MeasureCopy());
  report.copy_bytes_per_s = copy.bytes / copy.step_us * 1e6;
  report.rows.push_back(copy);

  // Before the model takes its memory, of which its cache may leave next to nothing.
  const ModelConfig& config = plan.shard.local;
  for (const int batch_size : options.batch_sizes) {
    ASSAY_RETURN_IF_ERROR(AddUnlessTooLarge(MeasureLinears(plan, batch_size), &report));
  }
  for (const int64_t context_len : options.context_lens) {
    for (const int batch_size : options.batch_sizes) {
      const auto row = MeasureAttention(config, plan.description, batch_size, context_len);
      ASSAY_RETURN_IF_ERROR(AddUnlessTooLarge(row, &report));
    }
  }
  for (const int batch_size : options.batch_sizes) {
    ASSAY_RETURN_IF_ERROR(
        AddUnlessTooLarge(MeasureSampling(batch_size, plan.shard.whole.vocab_size), &report));
  }

  if (options.devices.size() > 1) {
    ASSAY_ASSIGN_OR_RETURN(const std::vector<BenchmarkRow> rows,
                           MeasureAllReduce(options.devices, config.hidden_size, kAllReduceRows));
    report.rows.insert(report.rows.end(), rows.begin(), rows.end());
    ASSAY_RETURN_IF_ERROR(UseDevice(options.devices[0]).status());
  }
  const int max_batch = *std::ranges::max_element(options.batch_sizes);
  const int64_t longest = std::max(*std::ranges::max_element(options.context_lens), kPromptTokens);
  CudaRunnerOptions runner_options = {.devices = options.devices,
                                      .max_num_seqs = max_batch,
                                      .max_model_len = longest,
                                      .random_weights = options.random_weights,
                                      .random_weight_bits = options.weight_bits};
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<ModelRunner> runner,
                         LoadCudaRunner(options.model_dir, runner_options));
  RunnerBenchmark benchmark(runner.get(), costs, options);
  for (const int64_t context_len : options.context_lens) {
    for (const int batch_size : options.batch_sizes) {
      if (!benchmark.Fits(batch_size, context_len)) continue;
      ASSAY_ASSIGN_OR_RETURN(BenchmarkRow row, benchmark.MeasureDecode(batch_size, context_len));
      row.copy_share = row.bytes / row.step_us * 1e6 / report.copy_bytes_per_s;
      report.rows.push_back(row);
    }
  }
  const int num_prompts = static_cast<int>(options.prefill_tokens / kPromptTokens);
  if (num_prompts > 0 && num_prompts <= max_batch && benchmark.Fits(num_prompts, kPromptTokens)) {
    ASSAY_ASSIGN_OR_RETURN(const BenchmarkRow row,
                           benchmark.MeasurePrefill(num_prompts, kPromptTokens));
    report.rows.push_back(row);
  }
  return report;
}

}  // namespace assay::engine
