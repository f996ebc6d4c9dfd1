#include "engine/decoder/cpu/cpu_decoder.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "engine/kernels/cpu/kernel_table.h"

namespace assay::engine {
namespace {

// Rows of one task of a loop over rows.
constexpr int kRowsPerTask = 16;

template <typename Body>
void ForEachRow(cpu::ThreadPool* pool, int num_rows, const Body& body) {
  pool->ParallelFor((num_rows + kRowsPerTask - 1) / kRowsPerTask, [&](int task, int) {
    const int end = std::min(num_rows, (task + 1) * kRowsPerTask);
    for (int row = task * kRowsPerTask; row < end; ++row) body(row);
  });
}

}  // namespace

CpuDecoder::CpuDecoder(const CpuModel* model, bool round_to_bf16, cpu::ThreadPool* pool,
                       LapTimer* timer, RunnerTimes* times)
    : model_(*model),
      config_(model->config),
      round_to_bf16_(round_to_bf16),
      pool_(pool),
      timer_(timer),
      times_(times),
      rope_(model->config) {}

void CpuDecoder::RoundRows(float* x, int64_t size) const {
  if (round_to_bf16_) cpu::Kernels().round_to_bf16(x, size);
}

void CpuDecoder::Run(const Rows& rows, cpu::PagedKv* cache, cpu::Attention* attention,
                     ForwardObserver* observer) {
  Embed(rows, cache->shape());
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    RunAttention(layer, rows, cache, attention, observer);
    RunMlp(layer, rows.size(), observer);
  }
}

void CpuDecoder::Embed(const Rows& rows, const cpu::KvShape& shape) {
  const size_t num_rows = rows.tokens.size();
  hidden_.EnsureSize(num_rows * config_.hidden_size);
  normed_.EnsureSize(num_rows * config_.hidden_size);
  update_.EnsureSize(num_rows * config_.hidden_size);
  projected_.EnsureSize(num_rows * (config_.q_size() + 2 * config_.kv_size()));
  attended_.EnsureSize(num_rows * config_.q_size());
  gate_.EnsureSize(num_rows * config_.intermediate_size);
  up_.EnsureSize(num_rows * config_.intermediate_size);

  slots_.clear();
  int64_t num_positions = 0;
  for (const cpu::AttentionChunk& chunk : rows.chunks) {
    for (int row = 0; row < chunk.num_rows; ++row) {
      const int64_t position = chunk.first_position + row;
      slots_.push_back({position, chunk.block_table[position / shape.block_size],
                        static_cast<int>(position % shape.block_size)});
    }
    num_positions = std::max(num_positions, chunk.first_position + chunk.num_rows);
  }
  ASSAY_CHECK(slots_.size() == num_rows, "chunks cover {} of {} rows", slots_.size(), num_rows);
  rope_.EnsurePositions(num_positions);

  for (size_t row = 0; row < num_rows; ++row) {
    std::memcpy(hidden_.data() + row * config_.hidden_size,
                model_.embedding.data() + int64_t{rows.tokens[row]} * config_.hidden_size,
                sizeof(float) * config_.hidden_size);
  }
  RoundRows(hidden_.data(), static_cast<int64_t>(num_rows) * config_.hidden_size);
}

void CpuDecoder::Normalize(const std::vector<float>& weight, int num_rows) {
  const int size = config_.hidden_size;
  ForEachRow(pool_, num_rows, [&](int row) {
    float* y = normed_.data() + int64_t{row} * size;
    cpu::Kernels().rms_norm(hidden_.data() + int64_t{row} * size, weight.data(),
                            config_.rms_norm_eps, size, y);
    RoundRows(y, size);
  });
}

void CpuDecoder::AddToResidual(int num_rows) {
  const int size = config_.hidden_size;
  ForEachRow(pool_, num_rows, [&](int row) {
    float* update = update_.data() + int64_t{row} * size;
    float* hidden = hidden_.data() + int64_t{row} * size;
    RoundRows(update, size);
    cpu::Kernels().add(hidden, update, size);
    RoundRows(hidden, size);
  });
}

void CpuDecoder::Observe(const LinearGroup& group, const float* input, int num_rows,
                         ForwardObserver* observer) const {
  if (observer == nullptr) return;
  const std::span<const float> rows(input, size_t{1} * num_rows * group.in_features());
  for (int i = 0; i < group.size(); ++i) observer->OnLinearInput(group.name(i), num_rows, rows);
}

// Keys as PrepareKeys finds them when it comes to RoPE, were nothing quantized.
void CpuDecoder::ObserveKeys(int layer_index, int num_rows, ForwardObserver* observer) const {
  const CpuLayer& layer = model_.layers[layer_index];
  const int size = config_.kv_size();
  const int stride = config_.q_size() + 2 * size;
  const bool bias_is_missing = model_.key_position == CacheSpec::Position::kBeforeBias;
  std::vector<float> keys(size_t{1} * num_rows * size);
  for (int row = 0; row < num_rows; ++row) {
    float* key = keys.data() + int64_t{row} * size;
    std::memcpy(key, projected_.data() + int64_t{row} * stride + config_.q_size(),
                sizeof(float) * size);
    if (bias_is_missing && !layer.qkv.bias(1).empty()) {
      cpu::Kernels().add(key, layer.qkv.bias(1).data(), size);
    }
    for (int head = 0; config_.qk_norm && head < config_.num_kv_heads; ++head) {
      float* one = key + head * config_.head_dim;
      cpu::Kernels().rms_norm(one, layer.k_norm.data(), config_.rms_norm_eps, config_.head_dim,
                              one);
    }
  }
  observer->OnKeysBeforeRope(layer_index, num_rows, keys);
}

void CpuDecoder::PrepareKeys(const CpuLayer& layer, const Slot& slot, float* keys) const {
  const int head_dim = config_.head_dim;
  const CacheSpec::Position position = model_.key_position;
  if (position == CacheSpec::Position::kBeforeBias) {
    layer.k_cache.Apply(keys);
    const std::vector<float>& bias = layer.qkv.bias(1);
    if (!bias.empty()) cpu::Kernels().add(keys, bias.data(), config_.kv_size());
    RoundRows(keys, config_.kv_size());
  }
  if (config_.qk_norm) {
    for (int head = 0; head < config_.num_kv_heads; ++head) {
      float* key = keys + head * head_dim;
      cpu::Kernels().rms_norm(key, layer.k_norm.data(), config_.rms_norm_eps, head_dim, key);
    }
    RoundRows(keys, config_.kv_size());
  }
  if (position == CacheSpec::Position::kBeforeRope) layer.k_cache.Apply(keys);
  for (int head = 0; head < config_.num_kv_heads; ++head) {
    cpu::Kernels().rotate_half(keys + head * head_dim, rope_.cosines(slot.position),
                               rope_.sines(slot.position), rope_.half());
  }
  RoundRows(keys, config_.kv_size());
  if (position == CacheSpec::Position::kAfterRope) layer.k_cache.Apply(keys);
}

void CpuDecoder::PrepareRow(int layer_index, int row, cpu::PagedKv* cache) {
  const CpuLayer& layer = model_.layers[layer_index];
  const Slot& slot = slots_[row];
  const int head_dim = config_.head_dim;
  float* queries = projected_.data() + int64_t{row} * (config_.q_size() + 2 * config_.kv_size());
  float* keys = queries + config_.q_size();
  float* values = keys + config_.kv_size();
  // The bias of keys is still to come where it was deferred.
  RoundRows(queries, config_.q_size() + 2 * config_.kv_size());

  for (int head = 0; head < config_.num_heads; ++head) {
    float* query = queries + head * head_dim;
    if (config_.qk_norm) {
      cpu::Kernels().rms_norm(query, layer.q_norm.data(), config_.rms_norm_eps, head_dim, query);
      RoundRows(query, head_dim);
    }
    cpu::Kernels().rotate_half(query, rope_.cosines(slot.position), rope_.sines(slot.position),
                               rope_.half());
    RoundRows(query, head_dim);
    if (layer.k_cache.transforms_queries()) layer.k_cache.TransformQuery(query);
  }
  PrepareKeys(layer, slot, keys);
  layer.v_cache.Apply(values);
  for (int head = 0; head < config_.num_kv_heads; ++head) {
    cache->Write(layer_index, slot.block, head, slot.offset, keys + head * head_dim,
                 values + head * head_dim);
  }
}

void CpuDecoder::RunAttention(int layer_index, const Rows& rows, cpu::PagedKv* cache,
                              cpu::Attention* attention, ForwardObserver* observer) {
  const CpuLayer& layer = model_.layers[layer_index];
  const int num_rows = rows.size();
  const int64_t stride = config_.q_size() + 2 * config_.kv_size();
  float* queries = projected_.data();
  float* keys = queries + config_.q_size();
  Normalize(layer.input_norm, num_rows);
  Observe(layer.qkv, normed_.data(), num_rows, observer);
  const LinearGroup::Output outputs[] = {
      {queries, stride}, {keys, stride}, {keys + config_.kv_size(), stride}};
  layer.qkv.Multiply(normed_.data(), num_rows, outputs, &scratch_, pool_, timer_, times_);
  if (observer != nullptr) ObserveKeys(layer_index, num_rows, observer);

  ForEachRow(pool_, num_rows, [&](int row) { PrepareRow(layer_index, row, cache); });
  timer_->Start();
  attention->Run(layer_index, rows.chunks, queries, stride, attended_.data(), config_.q_size());
  timer_->Lap(&times_->attention);
  RoundRows(attended_.data(), int64_t{num_rows} * config_.q_size());

  Observe(layer.o, attended_.data(), num_rows, observer);
  const LinearGroup::Output update[] = {{update_.data(), config_.hidden_size}};
  layer.o.Multiply(attended_.data(), num_rows, update, &scratch_, pool_, timer_, times_);
  AddToResidual(num_rows);
}

void CpuDecoder::RunMlp(int layer_index, int num_rows, ForwardObserver* observer) {
  const CpuLayer& layer = model_.layers[layer_index];
  const int64_t size = config_.intermediate_size;
  Normalize(layer.post_attention_norm, num_rows);
  Observe(layer.gate_up, normed_.data(), num_rows, observer);
  const LinearGroup::Output outputs[] = {{gate_.data(), size}, {up_.data(), size}};
  layer.gate_up.Multiply(normed_.data(), num_rows, outputs, &scratch_, pool_, timer_, times_);
  ForEachRow(pool_, num_rows, [&](int row) {
    float* gate = gate_.data() + row * size;
    float* up = up_.data() + row * size;
    RoundRows(gate, size);
    RoundRows(up, size);
    cpu::Kernels().silu_multiply(gate, up, size, gate);
    RoundRows(gate, size);
  });
  Observe(layer.down, gate_.data(), num_rows, observer);
  const LinearGroup::Output update[] = {{update_.data(), config_.hidden_size}};
  layer.down.Multiply(gate_.data(), num_rows, update, &scratch_, pool_, timer_, times_);
  AddToResidual(num_rows);
}

void CpuDecoder::ComputeLogits(std::span<const int> row_indices, float* logits) {
  const int size = config_.hidden_size;
  const int num_rows = static_cast<int>(row_indices.size());
  ForEachRow(pool_, num_rows, [&](int index) {
    float* y = normed_.data() + int64_t{index} * size;
    cpu::Kernels().rms_norm(hidden_.data() + int64_t{row_indices[index]} * size,
                            model_.final_norm.data(), config_.rms_norm_eps, size, y);
    RoundRows(y, size);
  });
  timer_->Start();
  model_.lm_head.Multiply(normed_.data(), size, num_rows, nullptr, logits, config_.vocab_size,
                          pool_);
  timer_->Lap(&times_->matmul);
}

}  // namespace assay::engine
