// The linears of a decoder that a method may quantize: seven per block, by their full names.
#pragma once

#include <string>
#include <vector>

#include "engine/model/config.h"

namespace assay::engine {

enum class LinearKind { kQ, kK, kV, kO, kGate, kUp, kDown };

struct LinearInfo {
  std::string name;  // "model.layers.3.self_attn.q_proj"
  int layer = 0;
  LinearKind kind = LinearKind::kQ;
  int out_features = 0;
  int in_features = 0;
  bool has_bias = false;

  // Its input is split over tensor-parallel ranks, and over virtual shards.
  bool row_parallel() const { return kind == LinearKind::kO || kind == LinearKind::kDown; }
};

// "model.layers.3.self_attn.q_proj"
std::string LinearName(int layer, LinearKind kind);

// All of them: by layer, within a layer q, k, v, o, gate, up, down.
std::vector<LinearInfo> QuantizableLinears(const ModelConfig& config);

}  // namespace assay::engine
