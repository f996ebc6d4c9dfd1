#include "engine/decoder/cpu/cpu_runner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/status.h"

namespace assay::engine {
namespace {

cpu::KvShape ShapeOf(const ModelConfig& config, int block_size) {
  return {.num_layers = config.num_layers,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .block_size = block_size};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuRunner>> CpuRunner::Load(std::unique_ptr<CpuModel> model,
                                                           const Options& options) {
  if (options.num_threads < 1) {
    return InvalidArgument("num_threads is {}, must be at least 1", options.num_threads);
  }
  if (options.block_size < cpu::kPageTokens || options.block_size % cpu::kPageTokens != 0) {
    return InvalidArgument("block_size is {}, must be a multiple of {}", options.block_size,
                           cpu::kPageTokens);
  }
  const int64_t block_bytes = ShapeOf(model->config, options.block_size).block_bytes();
  const int64_t wanted = (options.cache_tokens + options.block_size - 1) / options.block_size;
  const int64_t num_blocks = std::min(wanted, options.kv_cache_bytes / block_bytes);
  if (num_blocks < 1) {
    return ResourceExhausted("a KV cache of {} bytes does not hold one block of {} bytes",
                             options.kv_cache_bytes, block_bytes);
  }
  return std::unique_ptr<CpuRunner>(new CpuRunner(std::move(model), options, num_blocks));
}

CpuRunner::CpuRunner(std::unique_ptr<CpuModel> model, const Options& options, int64_t num_blocks)
    : model_(std::move(model)),
      pool_(options.num_threads),
      timer_(options.clock),
      cache_(ShapeOf(model_->config, options.block_size), num_blocks),
      num_host_blocks_(options.swap_bytes / cache_.shape().block_bytes()),
      attention_(model_->config.num_heads, &cache_, &pool_),
      decoder_(model_.get(), options.round_activations_to_bf16, &pool_, &timer_, &times_),
      samplers_(options.num_threads) {}

int64_t CpuRunner::memory_bytes() const {
  return model_->memory_bytes() + cache_.num_blocks() * cache_.shape().block_bytes();
}

absl::Status CpuRunner::Launch(std::span<const BatchChunk> batch) {
  ASSAY_CHECK(std::ssize(in_flight_) < kMaxInFlight, "{} steps in flight", in_flight_.size());
  double num_context_tokens = 0;
  rows_.tokens.clear();
  rows_.chunks.clear();
  sampled_rows_.clear();
  sampled_chunks_.clear();
  for (const BatchChunk& chunk : batch) {
    rows_.chunks.push_back({.first_row = rows_.size(),
                            .num_rows = static_cast<int>(chunk.tokens.size()),
                            .first_position = chunk.first_position,
                            .block_table = chunk.block_table});
    if (chunk.previous_draw >= 0) {
      rows_.tokens.push_back(last_drawn_[static_cast<size_t>(chunk.previous_draw)]);
    } else {
      rows_.tokens.insert(rows_.tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
    }
    const int64_t context_len = chunk.first_position + std::ssize(chunk.tokens);
    num_context_tokens += static_cast<double>(context_len);
    times_.prompt_tokens += chunk.num_prompt_tokens();
    if (!chunk.samples) continue;
    sampled_rows_.push_back(rows_.size() - 1);
    sampled_chunks_.push_back(&chunk);
  }
  decoder_.Run(rows_, &cache_, &attention_, nullptr);
  const double cache_bytes =
      num_context_tokens * static_cast<double>(cache_.shape().block_bytes()) / block_size();
  times_.bytes_read += static_cast<double>(model_->memory_bytes()) + cache_bytes;
  times_.cache_bytes_read += cache_bytes;
  times_.tokens += rows_.size();
  SampleRows(&last_drawn_);
  in_flight_.push_back(last_drawn_);
  return absl::OkStatus();
}

absl::StatusOr<std::span<const int32_t>> CpuRunner::Collect() {
  ASSAY_CHECK(!in_flight_.empty(), "no step in flight");
  collected_ = std::move(in_flight_.front());
  in_flight_.pop_front();
  return std::span<const int32_t>(collected_);
}

void CpuRunner::SampleRows(std::vector<int32_t>* drawn) {
  const int num_sampled = static_cast<int>(sampled_rows_.size());
  const int64_t vocab = config().vocab_size;
  logits_.EnsureSize(num_sampled * vocab);
  drawn->resize(num_sampled);
  decoder_.ComputeLogits(sampled_rows_, logits_.data());
  timer_.Start();
  pool_.ParallelFor(num_sampled, [&](int index, int worker) {
    const BatchChunk& chunk = *sampled_chunks_[index];
    const std::span<const float> logits(logits_.data() + index * vocab, vocab);
    (*drawn)[index] = samplers_[worker].Sample(logits, chunk.sampling, chunk.output_position);
  });
  timer_.Lap(&times_.sampling);
}

absl::Status CpuRunner::CopyToHost(std::span<const BlockCopy> copies) {
  const int64_t size = cache_.shape().block_bytes() / static_cast<int64_t>(sizeof(float));
  for (const BlockCopy& copy : copies) {
    const auto index = static_cast<size_t>(copy.host_block);
    if (index >= host_blocks_.size()) host_blocks_.resize(index + 1);
    host_blocks_[index].resize(static_cast<size_t>(size));
    cache_.CopyBlockTo(copy.block, host_blocks_[index].data());
  }
  return absl::OkStatus();
}

absl::Status CpuRunner::CopyFromHost(std::span<const BlockCopy> copies) {
  for (const BlockCopy& copy : copies) {
    cache_.CopyBlockFrom(copy.block, host_blocks_[static_cast<size_t>(copy.host_block)].data());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> CpuRunner::Forward(std::span<const int32_t> ids,
                                                      ForwardObserver* observer) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= config().vocab_size) {
      return InvalidArgument("token id {} is not in the vocabulary of {}", id, config().vocab_size);
    }
  }
  std::vector<float> logits(ids.size() * config().vocab_size);
  if (ids.empty()) return logits;

  // A cache of its own, so that the running sequences keep theirs.
  const int64_t num_tokens = static_cast<int64_t>(ids.size());
  const int block_size = cache_.shape().block_size;
  const int64_t num_blocks = (num_tokens + block_size - 1) / block_size;
  cpu::PagedKv cache(cache_.shape(), num_blocks);
  cpu::Attention attention(config().num_heads, &cache, &pool_);
  std::vector<int32_t> block_table(num_blocks);
  std::iota(block_table.begin(), block_table.end(), 0);

  CpuDecoder::Rows rows;
  rows.tokens.assign(ids.begin(), ids.end());
  rows.chunks.push_back({.first_row = 0,
                         .num_rows = static_cast<int>(num_tokens),
                         .first_position = 0,
                         .block_table = block_table});
  decoder_.Run(rows, &cache, &attention, observer);
  std::vector<int> all_rows(num_tokens);
  std::iota(all_rows.begin(), all_rows.end(), 0);
  decoder_.ComputeLogits(all_rows, logits.data());
  return logits;
}

}  // namespace assay::engine
