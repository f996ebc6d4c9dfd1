// A decoder's weights on the CPU, checked against config.json and the description.
//
// Immutable and thread-safe once loaded.
#pragma once

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/decoder/cpu/linear_group.h"
#include "engine/kernels/cpu/packed_matrix.h"
#include "engine/model/config.h"
#include "engine/quant/cache_quantizer.h"
#include "engine/quant/description.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {

struct CpuLayer {
  std::vector<float> input_norm;           // [hidden]
  std::vector<float> post_attention_norm;  // [hidden]
  std::vector<float> q_norm;               // [head_dim]; empty without qk_norm
  std::vector<float> k_norm;
  LinearGroup qkv;  // q, k, v
  LinearGroup o;
  LinearGroup gate_up;  // gate, up
  LinearGroup down;
  CacheQuantizer k_cache;
  CacheQuantizer v_cache;
};

struct CpuModel {
  ModelConfig config;
  CacheSpec::Position key_position = CacheSpec::Position::kAfterRope;
  std::vector<float> embedding;   // [vocab, hidden]
  std::vector<float> final_norm;  // [hidden]
  cpu::PackedMatrix lm_head;      // [vocab, hidden]; the embedding's values when tied
  std::vector<CpuLayer> layers;

  int64_t memory_bytes() const;
};

// INVALID_ARGUMENT names the tensor, its shape and the expected shape, or what in the description
// this model cannot have.
absl::StatusOr<std::unique_ptr<CpuModel>> LoadCpuModel(const std::string& model_dir);

}  // namespace assay::engine
