#include "engine/decoder/cpu/cpu_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "engine/decoder/model_check.h"
#include "engine/model/linears.h"

namespace assay::engine {
namespace {

absl::StatusOr<CpuLayer> LoadLayer(const Checkpoint& checkpoint, const ModelConfig& config,
                                   const QuantDescription& description, int layer_index,
                                   std::span<const LinearInfo> linears) {
  CpuLayer layer;
  const std::string prefix = fmt::format("model.layers.{}.", layer_index);
  const int64_t hidden[] = {config.hidden_size};
  const int64_t head[] = {config.head_dim};
  ASSAY_ASSIGN_OR_RETURN(layer.input_norm,
                         checkpoint.ReadFloats(prefix + "input_layernorm.weight", hidden));
  ASSAY_ASSIGN_OR_RETURN(layer.post_attention_norm,
                         checkpoint.ReadFloats(prefix + "post_attention_layernorm.weight", hidden));
  if (config.qk_norm) {
    ASSAY_ASSIGN_OR_RETURN(layer.q_norm,
                           checkpoint.ReadFloats(prefix + "self_attn.q_norm.weight", head));
    ASSAY_ASSIGN_OR_RETURN(layer.k_norm,
                           checkpoint.ReadFloats(prefix + "self_attn.k_norm.weight", head));
  }
  // Within a layer: q, k, v, o, gate, up, down.
  const auto group = [&](int begin, int end) {
    return LinearGroup::Load(checkpoint, description,
                             {linears.begin() + begin, linears.begin() + end});
  };
  ASSAY_ASSIGN_OR_RETURN(layer.qkv, group(0, 3));
  ASSAY_ASSIGN_OR_RETURN(layer.o, group(3, 4));
  ASSAY_ASSIGN_OR_RETURN(layer.gate_up, group(4, 6));
  ASSAY_ASSIGN_OR_RETURN(layer.down, group(6, 7));
  if (description.k_cache.position == CacheSpec::Position::kBeforeBias) layer.qkv.DeferBias(1);
  ASSAY_ASSIGN_OR_RETURN(
      layer.k_cache, CacheQuantizer::Load(checkpoint, layer_index, description.k_cache,
                                          config.num_kv_heads, config.head_dim, /*is_key=*/true));
  ASSAY_ASSIGN_OR_RETURN(
      layer.v_cache, CacheQuantizer::Load(checkpoint, layer_index, description.v_cache,
                                          config.num_kv_heads, config.head_dim, /*is_key=*/false));
  return layer;
}

}  // namespace

int64_t CpuModel::memory_bytes() const {
  int64_t bytes = static_cast<int64_t>(embedding.size() * sizeof(float)) + lm_head.memory_bytes();
  for (const CpuLayer& layer : layers) {
    bytes += layer.qkv.memory_bytes() + layer.o.memory_bytes() + layer.gate_up.memory_bytes() +
             layer.down.memory_bytes();
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<CpuModel>> LoadCpuModel(const std::string& model_dir) {
  auto model = std::make_unique<CpuModel>();
  ASSAY_ASSIGN_OR_RETURN(model->config, LoadModelConfig(model_dir));
  ASSAY_ASSIGN_OR_RETURN(const QuantDescription description, LoadDescription(model_dir));
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(model_dir));
  const ModelConfig& config = model->config;
  ASSAY_RETURN_IF_ERROR(CheckDescription(config, description));
  ASSAY_RETURN_IF_ERROR(CheckFits(description, config));
  model->key_position = description.k_cache.position;

  const int64_t table[] = {config.vocab_size, config.hidden_size};
  const int64_t hidden[] = {config.hidden_size};
  ASSAY_ASSIGN_OR_RETURN(model->embedding,
                         checkpoint->ReadFloats("model.embed_tokens.weight", table));
  ASSAY_ASSIGN_OR_RETURN(model->final_norm, checkpoint->ReadFloats("model.norm.weight", hidden));
  if (config.tie_word_embeddings) {
    model->lm_head = cpu::PackedMatrix(model->embedding, config.vocab_size, config.hidden_size);
  } else {
    ASSAY_ASSIGN_OR_RETURN(const std::vector<float> head,
                           checkpoint->ReadFloats("lm_head.weight", table));
    model->lm_head = cpu::PackedMatrix(head, config.vocab_size, config.hidden_size);
  }

  const std::vector<LinearInfo> linears = QuantizableLinears(config);
  constexpr int kLinearsPerLayer = 7;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    ASSAY_ASSIGN_OR_RETURN(
        CpuLayer loaded,
        LoadLayer(*checkpoint, config, description, layer,
                  std::span(linears).subspan(layer * kLinearsPerLayer, kLinearsPerLayer)));
    model->layers.push_back(std::move(loaded));
  }
  return model;
}

}  // namespace assay::engine
