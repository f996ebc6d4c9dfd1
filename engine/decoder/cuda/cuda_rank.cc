#include "engine/decoder/cuda/cuda_rank.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "engine/kernels/cuda/random_fill.h"

namespace assay::engine::cuda {
namespace {

// For what CUDA takes itself: kernels, graphs, cuBLASLt (34 MiB of a 7B model with all graphs).
constexpr int64_t kReserveBytes = int64_t{256} << 20;
// In a gang besides: NCCL's channels, where the GPUs are connected through it.
constexpr int64_t kGangReserveBytes = int64_t{768} << 20;

int64_t NumPages(int64_t num_tokens) { return (num_tokens + kKvPageTokens - 1) / kKvPageTokens; }

RowSampling SamplingOf(const BatchChunk& chunk) {
  return {.temperature = chunk.sampling.temperature,
          .top_p = chunk.sampling.top_p,
          .top_k = chunk.sampling.top_k,
          .seed = chunk.sampling.seed,
          .position = chunk.output_position};
}

absl::StatusOr<int64_t> FreeBytes() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes));
  return static_cast<int64_t>(free_bytes);
}

// "cuda:0 (NVIDIA H200)", of a gang "rank 0 of 2, cuda:0 (NVIDIA H200)".
std::string NameOf(const ShardPlan& shard, const DeviceProperties& device) {
  const std::string name = fmt::format("cuda:{} ({})", device.ordinal, device.name);
  if (shard.size == 1) return name;
  return fmt::format("rank {} of {}, {}", shard.rank, shard.size, name);
}

}  // namespace

StepInputs::Limits CudaRank::InputLimits() const {
  const CudaDecoder::Limits& limits = options_.limits;
  return {.max_rows = limits.max_rows,
          .max_sampled = limits.max_sampled,
          .max_sequences = limits.max_decode_rows,
          .max_tiles = limits.max_rows,
          .table_stride = static_cast<int>(NumPages(limits.max_model_len))};
}

CudaPass::Limits CudaRank::pass_limits() const {
  return {.max_rows = options_.limits.max_rows,
          .max_decode_rows = options_.limits.max_decode_rows,
          .max_sequences = InputLimits().max_sequences};
}

absl::StatusOr<std::unique_ptr<CudaRank>> CudaRank::Plan(const CudaModelPlan* model_plan,
                                                         const Options& options) {
  const ModelConfig& config = model_plan->shard.local;
  const QuantDescription& description = model_plan->description;
  ASSAY_ASSIGN_OR_RETURN(const DeviceProperties device, UseDevice(options.device));
  ASSAY_ASSIGN_OR_RETURN(
      const KvPageLayout layout,
      MakeKvPageLayout(description.k_cache, description.v_cache, config.head_dim));
  std::unique_ptr<CudaRank> rank(new CudaRank(model_plan, options));
  rank->cache_ = {.base = nullptr,
                  .num_blocks = 0,
                  .num_layers = config.num_layers,
                  .num_kv_heads = config.num_kv_heads,
                  .layout = layout};
  const CudaDecoder::Limits& limits = options.limits;
  const StepInputs::Limits input_limits = rank->InputLimits();
  ASSAY_ASSIGN_OR_RETURN(
      rank->memory_plan_,
      PlanMemory(
          {.device = NameOf(model_plan->shard, device),
           .free_bytes = device.free_bytes / options.num_ranks_on_device,
           .weight_bytes = model_plan->weight_bytes,
           .activation_bytes =
               CudaDecoder::ActivationBytes(config, limits, model_plan->shard.size > 1),
           .workspace_bytes = CudaDecoder::WorkspaceBytes(config, limits) +
                              StepInputs::Bytes(input_limits) + options.communicator_bytes,
           .scoring_bytes = NumPages(options.max_forward_len) * rank->cache_.block_bytes(),
           .reserve_bytes = kReserveBytes + (model_plan->shard.size > 1 ? kGangReserveBytes : 0),
           .block_bytes = rank->cache_.block_bytes(),
           .wanted_blocks = options.max_num_seqs * int64_t{input_limits.table_stride},
           .limit_bytes = options.kv_cache_bytes,
           .max_model_len = limits.max_model_len,
           .block_size = kKvPageTokens}));
  LogWith(spdlog::level::info, {}, rank->memory_plan_.summary);
  rank->free_at_plan_ = device.free_bytes;
  return rank;
}

CudaRank::~CudaRank() {
  // What is in flight writes to memory that is about to go.
  if (stream_ != nullptr) (void)cudaStreamSynchronize(stream_.get());
}

int64_t CudaRank::weight_bytes_read() const {
  const ModelConfig& whole = model_plan_.shard.whole;
  const int64_t embedding_bytes = int64_t{whole.vocab_size} * whole.hidden_size * 2;
  return model_plan_.weight_bytes - (whole.tie_word_embeddings ? 0 : embedding_bytes);
}

absl::Status CudaRank::Load(int64_t num_blocks, Communicator* communicator) {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(options_.device));
  ASSAY_ASSIGN_OR_RETURN(stream_, MakeStream());
  const cudaStream_t stream = stream_.get();
  const int max_sampled = options_.limits.max_sampled;
  ASSAY_ASSIGN_OR_RETURN(model_, LoadCudaModel(model_plan_, stream));
  ASSAY_ASSIGN_OR_RETURN(decoder_,
                         CudaDecoder::Make(&model_, options_.limits, communicator, stream));
  ASSAY_ASSIGN_OR_RETURN(inputs_, StepInputs::Make(InputLimits()));
  ASSAY_ASSIGN_OR_RETURN(sampled_ids_, DeviceBuffer<int32_t>::Allocate(max_sampled));
  for (InFlight& pass : in_flight_) {
    ASSAY_ASSIGN_OR_RETURN(pass.start, MakeEvent());
    ASSAY_ASSIGN_OR_RETURN(pass.end, MakeEvent());
    ASSAY_ASSIGN_OR_RETURN(pass.ids, PinnedBuffer<int32_t>::Allocate(max_sampled));
  }
  const int64_t cache_bytes = num_blocks * cache_.block_bytes();
  ASSAY_ASSIGN_OR_RETURN(cache_memory_, DeviceBuffer<uint8_t>::Allocate(cache_bytes));
  // Nothing reads what was not written, but a page's idle slots are loaded with the others.
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaMemsetAsync(cache_memory_.data(), 0, static_cast<size_t>(cache_bytes), stream));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  cache_.base = cache_memory_.data();
  cache_.num_blocks = num_blocks;
  ASSAY_ASSIGN_OR_RETURN(
      swap_,
      BlockSwap::Make(options_.device, cache_, std::min(options_.swap_bytes, cache_bytes), stream));
  memory_bytes_ = memory_plan_.total_bytes - memory_plan_.cache_bytes + cache_bytes;
  LogWith(spdlog::level::debug, {}, "kernels of the linears\n" + decoder_->DescribeGemms());
  return model_plan_.random_weights ? FillCacheRandomly() : absl::OkStatus();
}

CudaDecoder::Step CudaRank::DecoderStep(int num_rows, int num_decode_rows, int num_tiles) const {
  const StepInputs::View& inputs = inputs_.device();
  return {.ids = inputs.ids,
          .drawn = sampled_ids_.data(),
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

absl::Status CudaRank::Launch(const CudaPass& pass) {
  ASSAY_CHECK(num_launched_ - num_collected_ < 2, "two passes are in flight");
  ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(options_.device));
  ASSAY_RETURN_IF_ERROR(inputs_.Turn());
  for (size_t i = 0; i < pass.block_tables.size(); ++i) {
    inputs_.SetBlockTable(static_cast<int>(i), pass.block_tables[i]);
  }
  FillRows(pass);
  ASSAY_RETURN_IF_ERROR(swap_->HoldBack(pass));
  const int graph_rows = pass.graph_rows();
  const cudaStream_t stream = stream_.get();
  InFlight& in_flight = in_flight_[num_launched_ % 2];
  in_flight.places.clear();
  for (size_t i = 0; i < pass.sampled.size(); ++i) {
    in_flight.places.push_back(graph_rows > 0 ? pass.sampled[i].index : static_cast<int>(i));
  }
  ASSAY_RETURN_IF_ERROR(graph_rows > 0 ? RunAsGraph(pass, graph_rows, in_flight.start)
                                       : RunEagerly(pass, in_flight.start));
  const int num_ids = graph_rows > 0 ? graph_rows : static_cast<int>(pass.sampled.size());
  ASSAY_RETURN_IF_ERROR(sampled_ids_.CopyTo(in_flight.ids.first(num_ids), stream));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(in_flight.end.get(), stream));
  ++num_launched_;
  return absl::OkStatus();
}

absl::StatusOr<std::span<const int32_t>> CudaRank::Collect() {
  ASSAY_CHECK(num_collected_ < num_launched_, "no pass is in flight");
  InFlight& pass = in_flight_[num_collected_++ % 2];
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(pass.end.get()));
  ASSAY_ASSIGN_OR_RETURN(const float milliseconds, ElapsedMs(pass.start, pass.end));
  device_time_ += absl::Milliseconds(milliseconds);
  drawn_.clear();
  for (const int place : pass.places) drawn_.push_back(pass.ids[place]);
  return std::span<const int32_t>(drawn_);
}

void CudaRank::FillRows(const CudaPass& pass) {
  const StepInputs::View& inputs = inputs_.host();
  const std::vector<int>& places_before = in_flight_[(num_launched_ + 1) % 2].places;
  // An id that the pass before draws is where that pass's sampler puts it.
  const auto id_of = [&](const CudaPass::Row& row) {
    return row.id >= 0 ? row.id : -1 - places_before[static_cast<size_t>(-1 - row.id)];
  };
  int at = 0;
  for (const std::vector<CudaPass::Row>* rows : {&pass.decode_rows, &pass.prompt_rows}) {
    for (const CudaPass::Row& row : *rows) {
      inputs.ids[at] = id_of(row);
      inputs.positions[at] = row.position;
      inputs.sequences[at] = row.sequence;
      ++at;
    }
  }
}

absl::Status CudaRank::RunEagerly(const CudaPass& pass, const Event& start) {
  const StepInputs::View& inputs = inputs_.host();
  const int num_decode_rows = static_cast<int>(pass.decode_rows.size());
  std::vector<PrefillChunk> runs = pass.prompt_runs;
  for (PrefillChunk& run : runs) run.first_row += num_decode_rows;
  const std::vector<PrefillChunk> tiles =
      MakePrefillTiles(runs, config().num_heads, config().num_kv_heads);
  ASSAY_CHECK(static_cast<int>(tiles.size()) <= inputs_.limits().max_tiles, "{} tiles",
              tiles.size());
  std::ranges::copy(tiles, inputs.tiles);
  const int num_sampled = static_cast<int>(pass.sampled.size());
  for (int i = 0; i < num_sampled; ++i) {
    const CudaPass::Sampled& sampled = pass.sampled[static_cast<size_t>(i)];
    inputs.sampled_rows[i] = sampled.index + (sampled.decodes ? 0 : num_decode_rows);
    inputs.sampling[i] = SamplingOf(*sampled.chunk);
  }
  const cudaStream_t stream = stream_.get();
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(start.get(), stream));
  ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream));
  ASSAY_RETURN_IF_ERROR(decoder_->Run(
      DecoderStep(pass.num_rows(), num_decode_rows, static_cast<int>(tiles.size())), stream));
  if (num_sampled == 0) return absl::OkStatus();
  const StepInputs::View& device = inputs_.device();
  ASSAY_RETURN_IF_ERROR(decoder_->ComputeLogits(device.sampled_rows, num_sampled, stream));
  return decoder_->SampleIds(device.sampling, sampled_ids_.data(), num_sampled, stream);
}

absl::Status CudaRank::RunAsGraph(const CudaPass& pass, int graph_rows, const Event& start) {
  const StepInputs::View& inputs = inputs_.host();
  const int num_rows = pass.num_rows();
  for (int row = num_rows; row < graph_rows; ++row) {
    inputs.ids[row] = 0;
    inputs.positions[row] = -1;
  }
  std::fill_n(inputs.sampling, graph_rows, RowSampling{});
  for (const CudaPass::Sampled& sampled : pass.sampled) {
    inputs.sampling[sampled.index] = SamplingOf(*sampled.chunk);
  }
  const cudaStream_t stream = stream_.get();
  ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(start.get(), stream));
  ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream));
  return CudaStatus(cudaGraphLaunch(graphs_.at(graph_rows).get(), stream), "cudaGraphLaunch");
}

absl::Status CudaRank::LaunchDecode(int graph_rows) {
  const cudaStream_t stream = stream_.get();
  const StepInputs::View& device = inputs_.device();
  CudaDecoder::Step step = DecoderStep(graph_rows, graph_rows, 0);
  step.rows.sequences = nullptr;  // row i has block table i
  ASSAY_RETURN_IF_ERROR(decoder_->Run(step, stream));
  ASSAY_RETURN_IF_ERROR(decoder_->ComputeLogits(nullptr, graph_rows, stream));
  return decoder_->SampleIds(device.sampling, sampled_ids_.data(), graph_rows, stream);
}

std::vector<int> CudaRank::GraphSizes() const {
  std::vector<int> sizes;
  for (int rows = GraphRowsFor(std::min(options_.max_num_seqs, kMaxGraphRows)); rows > 0;
       rows = GraphRowsBelow(rows)) {
    sizes.push_back(rows);
  }
  return sizes;
}

absl::Status CudaRank::WarmUp() {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(options_.device));
  const cudaStream_t stream = stream_.get();
  for (const int rows : GraphSizes()) {
    std::fill_n(inputs_.host().positions, rows, -1);
    std::fill_n(inputs_.host().ids, rows, 0);
    std::fill_n(inputs_.host().sampling, rows, RowSampling{});
    ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream));
    ASSAY_RETURN_IF_ERROR(LaunchDecode(rows));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  }
  return absl::OkStatus();
}

absl::Status CudaRank::CaptureGraphs() {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(options_.device));
  const cudaStream_t stream = stream_.get();
  for (const int rows : GraphSizes()) {
    ASSAY_ASSIGN_OR_RETURN(Graph graph, CaptureGraph(stream, [&] { return LaunchDecode(rows); }));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaGraphUpload(graph.get(), stream));
    graphs_.emplace(rows, std::move(graph));
  }
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  ASSAY_ASSIGN_OR_RETURN(const int64_t free_bytes, FreeBytes());
  LogWith(spdlog::level::info, {},
          fmt::format(
              "cuda:{}: {} graphs, all kernels and what CUDA keeps take {} MiB of the reserve",
              options_.device, graphs_.size(), (free_at_plan_ - free_bytes - memory_bytes_) >> 20));
  return absl::OkStatus();
}

absl::Status CudaRank::FillCacheRandomly() {
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

absl::Status CudaRank::PrepareForward(int64_t num_tokens) {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(options_.device));
  // A cache of its own, so that the running sequences keep theirs.
  forward_cache_ = cache_;
  forward_cache_.num_blocks = NumPages(num_tokens);
  auto memory = DeviceBuffer<uint8_t>::Allocate(forward_cache_.bytes());
  if (!memory.ok() && num_tokens > options_.max_forward_len) {
    return ResourceExhausted(
        "cuda:{} has no {} bytes left for the cache of a sequence of {} tokens that is scored: it "
        "was planned for {} (max_forward_len)",
        options_.device, forward_cache_.bytes(), num_tokens, options_.max_forward_len);
  }
  ASSAY_RETURN_IF_ERROR(memory.status());
  forward_cache_memory_ = *std::move(memory);
  forward_cache_.base = forward_cache_memory_.data();
  return SetBytes(forward_cache_.base, 0, forward_cache_memory_.bytes());
}

absl::Status CudaRank::EndForward() {
  forward_cache_memory_ = {};
  return absl::OkStatus();
}

absl::Status CudaRank::Forward(std::span<const int32_t> ids, std::span<float> logits) {
  ASSAY_RETURN_IF_CUDA_ERROR(cudaSetDevice(options_.device));
  const auto num_tokens = static_cast<int64_t>(ids.size());
  const int64_t vocab = config().vocab_size;
  const cudaStream_t stream = stream_.get();
  std::vector<int32_t> block_table(static_cast<size_t>(forward_cache_.num_blocks));
  std::iota(block_table.begin(), block_table.end(), 0);
  inputs_.SetBlockTable(0, block_table);

  const int max_rows = decoder_->limits().max_rows;
  const int max_sampled = decoder_->limits().max_sampled;
  for (int64_t begin = 0; begin < num_tokens; begin += max_rows) {
    const int rows = static_cast<int>(std::min<int64_t>(max_rows, num_tokens - begin));
    ASSAY_RETURN_IF_ERROR(inputs_.Turn());
    const StepInputs::View& inputs = inputs_.host();
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
    step.cache = forward_cache_;
    ASSAY_RETURN_IF_ERROR(decoder_->Run(step, stream));
    for (int first = 0; first < rows; first += max_sampled) {
      const int count = std::min(max_sampled, rows - first);
      ASSAY_RETURN_IF_ERROR(inputs_.Turn());
      int32_t* const sampled_rows = inputs_.host().sampled_rows;
      std::iota(sampled_rows, sampled_rows + count, first);
      ASSAY_RETURN_IF_ERROR(inputs_.Upload(stream));
      ASSAY_RETURN_IF_ERROR(decoder_->ComputeLogits(inputs_.device().sampled_rows, count, stream));
      if (logits.empty()) continue;
      float* out = logits.data() + (begin + first) * vocab;
      ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(out, decoder_->logits(),
                                                 static_cast<size_t>(count * vocab) * sizeof(float),
                                                 cudaMemcpyDeviceToHost, stream));
    }
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  }
  return absl::OkStatus();
}

}  // namespace assay::engine::cuda
