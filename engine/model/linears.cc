#include "engine/model/linears.h"

#include <fmt/format.h>

namespace assay::engine {

std::string LinearName(int layer, LinearKind kind) {
  static constexpr const char* kNames[] = {
      "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
      "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
  return fmt::format("model.layers.{}.{}", layer, kNames[static_cast<int>(kind)]);
}

std::vector<LinearInfo> QuantizableLinears(const ModelConfig& config) {
  std::vector<LinearInfo> linears;
  const auto add = [&](int layer, LinearKind kind, int out_features, int in_features, bool bias) {
    linears.push_back({.name = LinearName(layer, kind),
                       .layer = layer,
                       .kind = kind,
                       .out_features = out_features,
                       .in_features = in_features,
                       .has_bias = bias});
  };
  const int hidden = config.hidden_size;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    add(layer, LinearKind::kQ, config.q_size(), hidden, config.qkv_bias);
    add(layer, LinearKind::kK, config.kv_size(), hidden, config.qkv_bias);
    add(layer, LinearKind::kV, config.kv_size(), hidden, config.qkv_bias);
    add(layer, LinearKind::kO, hidden, config.q_size(), config.o_bias);
    add(layer, LinearKind::kGate, config.intermediate_size, hidden, false);
    add(layer, LinearKind::kUp, config.intermediate_size, hidden, false);
    add(layer, LinearKind::kDown, hidden, config.intermediate_size, false);
  }
  return linears;
}

}  // namespace assay::engine
