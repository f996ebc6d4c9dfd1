// What a decoder is: config.json of a Hugging Face folder, checked.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace assay::engine {

enum class Family { kLlama, kQwen2, kQwen3 };

// "llama3" RoPE scaling.
struct RopeScaling {
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 1;
  int64_t original_max_position_embeddings = 0;
};

struct ModelConfig {
  Family family = Family::kLlama;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;    // explicit, or hidden_size / num_heads
  int vocab_size = 0;  // rows of embedding and lm_head; may exceed the tokenizer's
  float rms_norm_eps = 1e-6f;
  double rope_theta = 10000;
  std::optional<RopeScaling> rope_scaling;
  int64_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;               // Qwen2; Llama and Qwen3 when attention_bias says so
  bool o_bias = false;                 // attention_bias of Llama and Qwen3
  bool qk_norm = false;                // Qwen3: RMSNorm per head on q and k before RoPE
  std::vector<int32_t> eos_token_ids;  // config.json and generation_config.json together
  std::optional<int32_t> bos_token_id;

  int q_size() const { return num_heads * head_dim; }
  int kv_size() const { return num_kv_heads * head_dim; }
};

// Reads config.json (and generation_config.json beside it when there is one).
// INVALID_ARGUMENT names the key, its value and what is supported: unknown architectures, unknown
// rope types, sliding windows in use, sizes that do not fit together.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir);

}  // namespace assay::engine
