#include "engine/decoder/cuda_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "engine/decoder/cuda_decoder.h"
#include "engine/decoder/cuda_memory_plan.h"
#include "engine/decoder/cuda_model.h"
#include "engine/decoder/cuda_step_inputs.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/random_fill.h"

namespace assay::engine {
namespace {

using namespace cuda;  // NOLINT: this file is the backend's door

// For what CUDA takes itself: kernels, graphs, cuBLASLt.
constexpr int64_t kReserveBytes = int64_t{1} << 30;

// Numbers of rows that have a graph; a step between two runs as the larger, its last rows idle.
constexpr int kGraphRows[] = {1,  2,  4,  8,   12,  16,  24,  32,  48,
                              64, 80, 96, 112, 128, 160, 192, 224, 256};

int GraphRowsFor(int num_rows) {
  const auto* found = std::ranges::lower_bound(kGraphRows, num_rows);
  return found == std::end(kGraphRows) ? 0 : *found;
}

// What one launch of the decoder computes: a step, or a part of one.
struct Pass {
  struct Row {
    int32_t id = 0;
    int32_t position = 0;
    int32_t sequence = 0;
  };
  struct Sampled {
    const BatchChunk* chunk = nullptr;
    bool decodes = false;
    int index = 0;  // among the decode rows, or among the prompt's
  };
  std::vector<Row> decode_rows;
  std::vector<Row> prompt_rows;
  std::vector<PrefillChunk> prompt_runs;
  std::vector<Sampled> sampled;
  std::vector<std::span<const int32_t>> block_tables;  // by sequence

  int num_rows() const { return static_cast<int>(decode_rows.size() + prompt_rows.size()); }
  void Clear() {
    decode_rows.clear();
    prompt_rows.clear();
    prompt_runs.clear();
    sampled.clear();
    block_tables.clear();
  }
};

RowSampling SamplingOf(const BatchChunk& chunk) {
  return {.temperature = chunk.sampling.temperature,
          .top_p = chunk.sampling.top_p,
          .top_k = chunk.sampling.top_k,
          .seed = chunk.sampling.seed,
          .position = chunk.output_position};
}

class CudaRunner final : public ModelRunner {
 public:
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Load(const std::string& model_dir,
                                                           const CudaRunnerOptions& options);

  const ModelConfig& config() const override { return model_.config; }
  int64_t num_blocks() const override { return cache_.num_blocks; }
  int block_size() const override { return kKvPageTokens; }
  int64_t memory_bytes() const override { return memory_bytes_; }
  absl::StatusOr<std::span<const int32_t>> Step(std::span<const BatchChunk> batch) override;
  absl::StatusOr<std::vector<float>> Forward(std::span<const int32_t> ids,
                                             ForwardObserver* observer) override;
  const RunnerTimes& times() const override { return times_; }

 private:
  CudaRunner() = default;

  // Adds tokens of the chunk, from *num_done on, as far as the pass has room.
  void AddToPass(const BatchChunk& chunk, int64_t* num_done);
  absl::Status RunPass();
  absl::Status RunEagerly();
  absl::Status RunAsGraph(int graph_rows);
  absl::StatusOr<cudaGraphExec_t> GraphFor(int graph_rows);
  // One decode step of graph_rows rows with all inputs where the step inputs are.
  absl::Status LaunchDecode(int graph_rows);
  void FillRows();
  absl::Status FetchIds(int count);
  // Waits for what was launched since the start event, and adds its time.
  absl::Status FinishPass();
  // Keys and values of random projections in every slot of the cache.
  absl::Status FillCacheRandomly();

  CudaDecoder::Step DecoderStep(int num_rows, int num_decode_rows, int num_tiles) const;

  int device_ = 0;
  Stream stream_;
  Event pass_start_;
  Event pass_end_;
  CudaModel model_;
  std::unique_ptr<CudaDecoder> decoder_;
  StepInputs inputs_;
  DeviceBuffer<uint8_t> cache_memory_;
  KvCache cache_;
  DeviceBuffer<int32_t> sampled_ids_;  // [max_sampled]
  PinnedBuffer<int32_t> sampled_ids_host_;
  int64_t memory_bytes_ = 0;
  RunnerTimes times_;
  Pass pass_;
  std::vector<int32_t> sampled_;
  std::map<int, Graph> graphs_;  // by rows; dies before what its kernels use
};

absl::StatusOr<std::unique_ptr<ModelRunner>> CudaRunner::Load(const std::string& model_dir,
                                                              const CudaRunnerOptions& options) {
  ASSAY_ASSIGN_OR_RETURN(const CudaModelPlan model_plan,
                         PlanCudaModel(model_dir, options.random_weights));
  const ModelConfig& config = model_plan.config;
  ASSAY_ASSIGN_OR_RETURN(const DeviceProperties device, UseDevice(options.device));
  ASSAY_ASSIGN_OR_RETURN(const KvPageLayout layout,
                         MakeKvPageLayout(model_plan.description.k_cache,
                                          model_plan.description.v_cache, config.head_dim));
  const int64_t max_model_len =
      options.max_model_len == 0 ? config.max_position_embeddings : options.max_model_len;
  // Graphs round the number of rows up.
  const int lanes = std::max(options.max_num_seqs, GraphRowsFor(options.max_num_seqs));
  const CudaDecoder::Limits limits = {.max_rows = std::max(options.prefill_chunk, 0) + lanes,
                                      .max_decode_rows = lanes,
                                      .max_sampled = lanes,
                                      .max_model_len = max_model_len};
  const StepInputs::Limits input_limits = {
      .max_rows = limits.max_rows,
      .max_sampled = lanes,
      .max_sequences = lanes,
      .max_tiles = limits.max_rows,
      .table_stride = static_cast<int>((max_model_len + kKvPageTokens - 1) / kKvPageTokens)};

  std::unique_ptr<CudaRunner> runner(new CudaRunner);
  runner->device_ = options.device;
  KvCache& cache = runner->cache_;
  cache = {.base = nullptr,
           .num_blocks = 0,
           .num_layers = config.num_layers,
           .num_kv_heads = config.num_kv_heads,
           .layout = layout};
  ASSAY_ASSIGN_OR_RETURN(
      const MemoryPlan plan,
      PlanMemory({.device = fmt::format("cuda:{} ({})", device.ordinal, device.name),
                  .free_bytes = device.free_bytes,
                  .weight_bytes = model_plan.weight_bytes,
                  .activation_bytes = CudaDecoder::ActivationBytes(config, limits),
                  .workspace_bytes =
                      CudaDecoder::WorkspaceBytes(config, limits) + StepInputs::Bytes(input_limits),
                  .reserve_bytes = kReserveBytes,
                  .block_bytes = cache.block_bytes(),
                  .wanted_blocks = options.max_num_seqs * int64_t{input_limits.table_stride},
                  .limit_bytes = options.kv_cache_bytes,
                  .max_model_len = max_model_len,
                  .block_size = kKvPageTokens}));
  LogWith(spdlog::level::info, {}, plan.summary);

  ASSAY_ASSIGN_OR_RETURN(runner->stream_, MakeStream());
  ASSAY_ASSIGN_OR_RETURN(runner->pass_start_, MakeEvent());
  ASSAY_ASSIGN_OR_RETURN(runner->pass_end_, MakeEvent());
  const cudaStream_t stream = runner->stream_.get();
  ASSAY_ASSIGN_OR_RETURN(runner->model_, LoadCudaModel(model_plan, stream));
  ASSAY_ASSIGN_OR_RETURN(runner->decoder_, CudaDecoder::Make(&runner->model_, limits, stream));
  ASSAY_ASSIGN_OR_RETURN(runner->inputs_, StepInputs::Make(input_limits));
  ASSAY_ASSIGN_OR_RETURN(runner->sampled_ids_, DeviceBuffer<int32_t>::Allocate(lanes));
  ASSAY_ASSIGN_OR_RETURN(runner->sampled_ids_host_, PinnedBuffer<int32_t>::Allocate(lanes));
  ASSAY_ASSIGN_OR_RETURN(runner->cache_memory_, DeviceBuffer<uint8_t>::Allocate(plan.cache_bytes));
  // Nothing reads what was not written, but a page's idle slots are loaded with the others.
  ASSAY_RETURN_IF_CUDA_ERROR(cudaMemsetAsync(runner->cache_memory_.data(), 0,
                                             static_cast<size_t>(plan.cache_bytes), stream));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  cache.base = runner->cache_memory_.data();
  cache.num_blocks = plan.num_blocks;
  runner->memory_bytes_ = plan.total_bytes;
  LogWith(spdlog::level::debug, {}, "kernels of the linears\n" + runner->decoder_->DescribeGemms());
  if (options.random_weights) ASSAY_RETURN_IF_ERROR(runner->FillCacheRandomly());
  return std::unique_ptr<ModelRunner>(std::move(runner));
}

CudaDecoder::Step CudaRunner::DecoderStep(int num_rows, int num_decode_rows, int num_tiles) const {
  const StepInputs::View& inputs = inputs_.device();
  return {.ids = inputs.ids,
          .rows = {.num_rows = num_rows,
                   .positions = inputs.positions,
                   .sequences = inputs.sequences,
                   .block_tables = inputs.block_tables,
                   .block_table_stride = inputs_.limits().table_stride},
          .num_decode_rows = num_decode_rows,
          .tiles = inputs.tiles,
          .num_tiles = num_tiles,
          .cache = cache_};
}

absl::StatusOr<std::span<const int32_t>> CudaRunner::Step(std::span<const BatchChunk> batch) {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(device_));
  sampled_.clear();
  pass_.Clear();
  for (const BatchChunk& chunk : batch) {
    const auto num_tokens = static_cast<int64_t>(chunk.tokens.size());
    for (int64_t num_done = 0; num_done < num_tokens;) {
      AddToPass(chunk, &num_done);
      if (num_done == num_tokens) break;
      ASSAY_RETURN_IF_ERROR(RunPass());  // full
    }
  }
  ASSAY_RETURN_IF_ERROR(RunPass());
  return std::span<const int32_t>(sampled_);
}

void CudaRunner::AddToPass(const BatchChunk& chunk, int64_t* num_done) {
  const CudaDecoder::Limits& limits = decoder_->limits();
  const int sequence = static_cast<int>(pass_.block_tables.size());
  if (sequence == inputs_.limits().max_sequences || pass_.num_rows() == limits.max_rows) return;
  const auto num_tokens = static_cast<int64_t>(chunk.tokens.size());
  pass_.block_tables.push_back(chunk.block_table);
  bool starts_run = true;
  for (; *num_done < num_tokens; ++*num_done) {
    if (pass_.num_rows() == limits.max_rows) return;
    const int64_t position = chunk.first_position + *num_done;
    const Pass::Row row = {.id = chunk.tokens[static_cast<size_t>(*num_done)],
                           .position = static_cast<int32_t>(position),
                           .sequence = sequence};
    const bool decodes = position >= chunk.prompt_len;
    if (decodes) {
      if (static_cast<int>(pass_.decode_rows.size()) == limits.max_decode_rows) return;
      pass_.decode_rows.push_back(row);
    } else {
      if (starts_run) {
        pass_.prompt_runs.push_back({.first_row = static_cast<int32_t>(pass_.prompt_rows.size()),
                                     .num_rows = 0,
                                     .first_position = row.position,
                                     .sequence = sequence});
        starts_run = false;
      }
      ++pass_.prompt_runs.back().num_rows;
      pass_.prompt_rows.push_back(row);
    }
    if (chunk.samples && *num_done + 1 == num_tokens) {
      const size_t index = decodes ? pass_.decode_rows.size() : pass_.prompt_rows.size();
      pass_.sampled.push_back(
          {.chunk = &chunk, .decodes = decodes, .index = static_cast<int>(index) - 1});
    }
  }
}

absl::Status CudaRunner::RunPass() {
  if (pass_.num_rows() == 0) return absl::OkStatus();
  for (size_t i = 0; i < pass_.block_tables.size(); ++i) {
    inputs_.SetBlockTable(static_cast<int>(i), pass_.block_tables[i]);
  }
  const int num_rows = pass_.num_rows();
  const bool one_row_each =
      pass_.prompt_rows.empty() && pass_.block_tables.size() == pass_.decode_rows.size();
  const int graph_rows = one_row_each ? GraphRowsFor(num_rows) : 0;
  ASSAY_RETURN_IF_ERROR(graph_rows > 0 ? RunAsGraph(graph_rows) : RunEagerly());
  for (size_t i = 0; i < pass_.sampled.size(); ++i) {
    const size_t place = graph_rows > 0 ? static_cast<size_t>(pass_.sampled[i].index) : i;
    sampled_.push_back(sampled_ids_host_[static_cast<int64_t>(place)]);
  }
  pass_.Clear();
  return absl::OkStatus();
}

void CudaRunner::FillRows() {
  const StepInputs::View& inputs = inputs_.host();
  int at = 0;
  for (const std::vector<Pass::Row>* rows : {&pass_.decode_rows, &pass_.prompt_rows}) {
    for (const Pass::Row& row : *rows) {
      inputs.ids[at] = row.id;
      inputs.positions[at] = row.position;
      inputs.sequences[at] = row.sequence;
      ++at;
    }
  }
}

absl::Status CudaRunner::RunEagerly() {
  const StepInputs::View& inputs = inputs_.host();
  const int num_decode_rows = static_cast<int>(pass_.decode_rows.size());
  FillRows();
  for (PrefillChunk& run : pass_.prompt_runs) run.first_row += num_decode_rows;
  const std::vector<PrefillChunk> tiles =
      MakePrefillTiles(pass_.prompt_runs, config().num_heads, config().num_kv_heads);
  ASSAY_CHECK(static_cast<int>(tiles.size()) <= inputs_.limits().max_tiles, "{} tiles",
              tiles.size());
  std::ranges::copy(tiles, inputs.tiles);
  const int num_sampled = static_cast<int>(pass_.sampled.size());
  for (int i = 0; i < num_sampled; ++i) {
    const Pass::Sampled& sampled = pass_.sampled[static_cast<size_t>(i)];
    inputs.sampled_rows[i] = sampled.index + (sampled.decodes ? 0 : num_decode_rows);
    inputs.sampling[i] = SamplingOf(*sampled.chunk);
  }
  const cudaStream_t stream = stream_.get();
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(pass_start_.get(), stream));
  ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream));
  ASSAY_RETURN_IF_ERROR(decoder_->Run(
      DecoderStep(pass_.num_rows(), num_decode_rows, static_cast<int>(tiles.size())), stream));
  if (num_sampled > 0) {
    const StepInputs::View& device = inputs_.device();
    ASSAY_RETURN_IF_ERROR(decoder_->ComputeLogits(device.sampled_rows, num_sampled, stream));
    ASSAY_RETURN_IF_ERROR(
        decoder_->SampleIds(device.sampling, sampled_ids_.data(), num_sampled, stream));
    ASSAY_RETURN_IF_ERROR(FetchIds(num_sampled));
  }
  return FinishPass();
}

absl::Status CudaRunner::FinishPass() {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(pass_end_.get(), stream_.get()));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_.get()));
  ASSAY_ASSIGN_OR_RETURN(const float milliseconds, ElapsedMs(pass_start_, pass_end_));
  times_.device += absl::Milliseconds(milliseconds);
  return absl::OkStatus();
}

absl::Status CudaRunner::FetchIds(int count) {
  return sampled_ids_.CopyTo(sampled_ids_host_.first(count), stream_.get());
}

absl::Status CudaRunner::RunAsGraph(int graph_rows) {
  ASSAY_ASSIGN_OR_RETURN(const cudaGraphExec_t graph, GraphFor(graph_rows));
  FillRows();
  const StepInputs::View& inputs = inputs_.host();
  const int num_rows = pass_.num_rows();
  for (int row = num_rows; row < graph_rows; ++row) {
    inputs.ids[row] = 0;
    inputs.positions[row] = -1;
  }
  std::fill_n(inputs.sampling, graph_rows, RowSampling{});
  for (const Pass::Sampled& sampled : pass_.sampled) {
    inputs.sampling[sampled.index] = SamplingOf(*sampled.chunk);
  }
  const cudaStream_t stream = stream_.get();
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(pass_start_.get(), stream));
  ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaGraphLaunch(graph, stream));
  return FinishPass();
}

absl::Status CudaRunner::LaunchDecode(int graph_rows) {
  const cudaStream_t stream = stream_.get();
  const StepInputs::View& device = inputs_.device();
  CudaDecoder::Step step = DecoderStep(graph_rows, graph_rows, 0);
  step.rows.sequences = nullptr;  // row i has block table i
  ASSAY_RETURN_IF_ERROR(decoder_->Run(step, stream));
  ASSAY_RETURN_IF_ERROR(decoder_->ComputeLogits(nullptr, graph_rows, stream));
  ASSAY_RETURN_IF_ERROR(
      decoder_->SampleIds(device.sampling, sampled_ids_.data(), graph_rows, stream));
  return FetchIds(graph_rows);
}

absl::StatusOr<cudaGraphExec_t> CudaRunner::GraphFor(int graph_rows) {
  const auto found = graphs_.find(graph_rows);
  if (found != graphs_.end()) return found->second.get();
  // Once outside of a graph, on idle rows: kernels are loaded at their first launch, which a
  // capture does not allow.
  std::fill_n(inputs_.host().positions, graph_rows, -1);
  std::fill_n(inputs_.host().ids, graph_rows, 0);
  std::fill_n(inputs_.host().sampling, graph_rows, RowSampling{});
  ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream_.get()));
  ASSAY_RETURN_IF_ERROR(LaunchDecode(graph_rows));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_.get()));
  ASSAY_ASSIGN_OR_RETURN(Graph graph,
                         CaptureGraph(stream_.get(), [&] { return LaunchDecode(graph_rows); }));
  return graphs_.emplace(graph_rows, std::move(graph)).first->second.get();
}

absl::Status CudaRunner::FillCacheRandomly() {
  const cudaStream_t stream = stream_.get();
  const StepInputs::View& inputs = inputs_.host();
  const int64_t stride = int64_t{config().q_size()} + 2 * int64_t{config().kv_size()};
  const int blocks_at_once =
      std::min(inputs_.limits().max_rows / kKvPageTokens, inputs_.limits().max_sequences);
  if (blocks_at_once == 0) return absl::OkStatus();
  const int num_rows = blocks_at_once * kKvPageTokens;
  ASSAY_ASSIGN_OR_RETURN(const auto projections,
                         DeviceBuffer<__nv_bfloat16>::Allocate(num_rows * stride));
  ASSAY_RETURN_IF_ERROR(
      FillRandom(projections.data(), projections.size(), 0, 1, /*seed=*/3, stream));
  for (int row = 0; row < num_rows; ++row) {
    inputs.positions[row] = row % kKvPageTokens;
    inputs.sequences[row] = row / kKvPageTokens;
  }
  for (int64_t begin = 0; begin < cache_.num_blocks; begin += blocks_at_once) {
    const int64_t count = std::min<int64_t>(blocks_at_once, cache_.num_blocks - begin);
    for (int i = 0; i < count; ++i) {
      const int32_t block = static_cast<int32_t>(begin + i);
      inputs_.SetBlockTable(i, {&block, 1});
    }
    ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream));
    for (int layer = 0; layer < config().num_layers; ++layer) {
      ASSAY_RETURN_IF_ERROR(
          decoder_->WriteCache(DecoderStep(static_cast<int>(count) * kKvPageTokens, 0, 0), layer,
                               projections.data(), stream));
    }
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> CudaRunner::Forward(std::span<const int32_t> ids,
                                                       ForwardObserver* observer) {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(device_));
  if (observer != nullptr) {
    return Unimplemented("the CUDA backend shows no activations: calibrate with --device cpu");
  }
  const auto num_tokens = static_cast<int64_t>(ids.size());
  if (num_tokens > decoder_->limits().max_model_len) {
    return InvalidArgument("{} tokens are more than max_model_len {}", num_tokens,
                           decoder_->limits().max_model_len);
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= config().vocab_size) {
      return InvalidArgument("token id {} is not in the vocabulary of {}", id, config().vocab_size);
    }
  }
  const int64_t vocab = config().vocab_size;
  std::vector<float> logits(static_cast<size_t>(num_tokens * vocab));
  if (ids.empty()) return logits;

  // A cache of its own, so that the running sequences keep theirs.
  KvCache cache = cache_;
  cache.num_blocks = (num_tokens + kKvPageTokens - 1) / kKvPageTokens;
  ASSAY_ASSIGN_OR_RETURN(const DeviceBuffer<uint8_t> memory,
                         DeviceBuffer<uint8_t>::Allocate(cache.bytes()));
  cache.base = memory.data();
  const cudaStream_t stream = stream_.get();
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaMemsetAsync(memory.data(), 0, static_cast<size_t>(memory.bytes()), stream));
  std::vector<int32_t> block_table(static_cast<size_t>(cache.num_blocks));
  std::iota(block_table.begin(), block_table.end(), 0);
  inputs_.SetBlockTable(0, block_table);

  const StepInputs::View& inputs = inputs_.host();
  const int max_rows = decoder_->limits().max_rows;
  const int max_sampled = decoder_->limits().max_sampled;
  for (int64_t begin = 0; begin < num_tokens; begin += max_rows) {
    const int rows = static_cast<int>(std::min<int64_t>(max_rows, num_tokens - begin));
    for (int row = 0; row < rows; ++row) {
      inputs.ids[row] = ids[static_cast<size_t>(begin + row)];
      inputs.positions[row] = static_cast<int32_t>(begin + row);
      inputs.sequences[row] = 0;
    }
    const PrefillChunk run = {.first_row = 0,
                              .num_rows = rows,
                              .first_position = static_cast<int32_t>(begin),
                              .sequence = 0};
    const std::vector<PrefillChunk> tiles =
        MakePrefillTiles({&run, 1}, config().num_heads, config().num_kv_heads);
    std::ranges::copy(tiles, inputs.tiles);
    ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream));
    CudaDecoder::Step step = DecoderStep(rows, 0, static_cast<int>(tiles.size()));
    step.cache = cache;
    ASSAY_RETURN_IF_ERROR(decoder_->Run(step, stream));
    for (int first = 0; first < rows; first += max_sampled) {
      const int count = std::min(max_sampled, rows - first);
      std::iota(inputs.sampled_rows, inputs.sampled_rows + count, first);
      ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
      ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream));
      ASSAY_RETURN_IF_ERROR(decoder_->ComputeLogits(inputs_.device().sampled_rows, count, stream));
      float* out = logits.data() + (begin + first) * vocab;
      ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(out, decoder_->logits(),
                                                 static_cast<size_t>(count * vocab) * sizeof(float),
                                                 cudaMemcpyDeviceToHost, stream));
    }
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  }
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
