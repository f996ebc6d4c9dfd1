#include "engine/model/config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/json_check.h"
#include "base/status.h"

namespace assay::engine {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxConfigBytes = 16 << 20;
constexpr int kMaxSize = 1 << 24;  // of a hidden dimension, a vocabulary
constexpr int kMaxLayers = 4096;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

absl::StatusOr<Json> ReadObject(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  ASSAY_RETURN_IF_ERROR(CheckJson(text, path));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return InvalidArgument("{}: not a JSON object", path);
  return json;
}

// Typed access to the keys of one object; `where` goes into every message. A key that is null
// counts as absent, as it does for Hugging Face.
class Reader {
 public:
  Reader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  const std::string& where() const { return where_; }

  const Json* Find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  absl::Status Bad(const char* key, const std::string& needed) const {
    const Json* const value = Find(key);
    if (value == nullptr) return InvalidArgument("{}: no '{}'; needed: {}", where_, key, needed);
    return InvalidArgument("{}: '{}' is {}; needed: {}", where_, key, value->dump(), needed);
  }

  // A whole number in 1..max. Without a fallback the key is required.
  absl::StatusOr<int64_t> Whole(const char* key, int64_t max,
                                std::optional<int64_t> fallback = std::nullopt) const {
    const Json* const value = Find(key);
    if (value == nullptr && fallback) return *fallback;
    // Unsigned first: a huge unsigned must not wrap into range.
    if (value == nullptr || !value->is_number_unsigned() || value->get<uint64_t>() < 1 ||
        value->get<uint64_t>() > static_cast<uint64_t>(max)) {
      return Bad(key, fmt::format("a whole number in 1..{}", max));
    }
    return value->get<int64_t>();
  }

  absl::StatusOr<double> Positive(const char* key,
                                  std::optional<double> fallback = std::nullopt) const {
    const Json* const value = Find(key);
    if (value == nullptr && fallback) return *fallback;
    if (value == nullptr || !value->is_number() || !(value->get<double>() > 0) ||
        !std::isfinite(value->get<double>())) {
      return Bad(key, "a positive number");
    }
    return value->get<double>();
  }

  absl::StatusOr<bool> Bool(const char* key, bool fallback) const {
    const Json* const value = Find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) return Bad(key, "true or false");
    return value->get<bool>();
  }

  absl::StatusOr<std::string> String(const char* key, const std::string& fallback) const {
    const Json* const value = Find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) return Bad(key, "a string");
    return value->get<std::string>();
  }

  // One id or a list of ids.
  absl::StatusOr<std::vector<int32_t>> Ids(const char* key) const {
    const Json* const value = Find(key);
    if (value == nullptr) return std::vector<int32_t>();
    std::vector<int32_t> ids;
    for (const Json& id : value->is_array() ? *value : Json::array({*value})) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= kMaxSize) {
        return Bad(key, "a token id or a list of token ids");
      }
      ids.push_back(id.get<int32_t>());
    }
    return ids;
  }

 private:
  const Json& json_;
  const std::string where_;
};

absl::StatusOr<Family> ReadFamily(const Reader& config) {
  static constexpr char kSupported[] = "LlamaForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM";
  std::string name;
  if (const Json* const list = config.Find("architectures"); list != nullptr) {
    if (!list->is_array() || list->size() != 1 || !(*list)[0].is_string()) {
      return config.Bad("architectures", fmt::format("a list of one of {}", kSupported));
    }
    name = (*list)[0].get<std::string>();
  } else {
    ASSAY_ASSIGN_OR_RETURN(name, config.String("model_type", ""));
  }
  if (name == "LlamaForCausalLM" || name == "llama") return Family::kLlama;
  if (name == "Qwen2ForCausalLM" || name == "qwen2") return Family::kQwen2;
  if (name == "Qwen3ForCausalLM" || name == "qwen3") return Family::kQwen3;
  return InvalidArgument("{}: architecture '{}' is not supported; supported: {}", config.where(),
                         name, kSupported);
}

// rope_scaling and rope_theta, or rope_parameters, which holds both since transformers 5.
absl::Status ReadRope(const Reader& config, ModelConfig* result) {
  ASSAY_ASSIGN_OR_RETURN(result->rope_theta, config.Positive("rope_theta", 10000.0));
  const char* const key = config.Find("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Json* const object = config.Find(key);
  if (object == nullptr) return absl::OkStatus();
  if (!object->is_object()) return config.Bad(key, "an object");
  const Reader rope(*object, fmt::format("{}: {}", config.where(), key));
  ASSAY_ASSIGN_OR_RETURN(result->rope_theta, rope.Positive("rope_theta", result->rope_theta));
  // "type" is the older name.
  ASSAY_ASSIGN_OR_RETURN(const std::string old_type, rope.String("type", "default"));
  ASSAY_ASSIGN_OR_RETURN(const std::string type, rope.String("rope_type", old_type));
  if (type == "default") return absl::OkStatus();
  if (type != "llama3") {
    return InvalidArgument("{}: rope type '{}' is not supported; supported: default, llama3",
                           rope.where(), type);
  }
  RopeScaling scaling;
  ASSAY_ASSIGN_OR_RETURN(scaling.factor, rope.Positive("factor"));
  ASSAY_ASSIGN_OR_RETURN(scaling.low_freq_factor, rope.Positive("low_freq_factor"));
  ASSAY_ASSIGN_OR_RETURN(scaling.high_freq_factor, rope.Positive("high_freq_factor"));
  ASSAY_ASSIGN_OR_RETURN(scaling.original_max_position_embeddings,
                         rope.Whole("original_max_position_embeddings", kMaxPositions));
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    return rope.Bad("high_freq_factor",
                    fmt::format("more than low_freq_factor {}", scaling.low_freq_factor));
  }
  result->rope_scaling = scaling;
  return absl::OkStatus();
}

// What would change the computation in ways that the engine does not know.
absl::Status RefuseUnsupported(const Reader& config, int num_layers) {
  ASSAY_ASSIGN_OR_RETURN(const std::string activation, config.String("hidden_act", "silu"));
  if (activation != "silu") return config.Bad("hidden_act", "silu");
  ASSAY_ASSIGN_OR_RETURN(const bool mlp_bias, config.Bool("mlp_bias", false));
  if (mlp_bias) return config.Bad("mlp_bias", "false");
  ASSAY_ASSIGN_OR_RETURN(const bool mrope, config.Bool("use_mrope", false));
  if (mrope) return config.Bad("use_mrope", "false");
  // The window is used in layers from max_window_layers on.
  ASSAY_ASSIGN_OR_RETURN(const bool sliding, config.Bool("use_sliding_window", false));
  if (sliding) {
    ASSAY_ASSIGN_OR_RETURN(const int64_t first, config.Whole("max_window_layers", kMaxLayers, 1));
    if (first < num_layers) {
      return config.Bad("use_sliding_window", "false (sliding window attention is not supported)");
    }
  }
  if (const Json* const types = config.Find("layer_types"); types != nullptr) {
    const bool all_full = types->is_array() && std::ranges::all_of(*types, [](const Json& type) {
                            return type == "full_attention";
                          });
    if (!all_full) return config.Bad("layer_types", "'full_attention' in every layer");
  }
  if (const Json* const quantized = config.Find("quantization_config"); quantized != nullptr) {
    return InvalidArgument(
        "{}: 'quantization_config' of a checkpoint quantized elsewhere, {}, is not supported; "
        "give the original model and a method",
        config.where(), quantized->dump().substr(0, 200));
  }
  return absl::OkStatus();
}

absl::Status ReadSizes(const Reader& config, ModelConfig* result) {
  const auto read = [&](const char* key, int max, int* size,
                        std::optional<int64_t> fallback = std::nullopt) -> absl::Status {
    ASSAY_ASSIGN_OR_RETURN(const int64_t value, config.Whole(key, max, fallback));
    *size = static_cast<int>(value);
    return absl::OkStatus();
  };
  ASSAY_RETURN_IF_ERROR(read("hidden_size", kMaxSize, &result->hidden_size));
  ASSAY_RETURN_IF_ERROR(read("intermediate_size", kMaxSize, &result->intermediate_size));
  ASSAY_RETURN_IF_ERROR(read("num_hidden_layers", kMaxLayers, &result->num_layers));
  ASSAY_RETURN_IF_ERROR(read("num_attention_heads", 1 << 14, &result->num_heads));
  ASSAY_RETURN_IF_ERROR(
      read("num_key_value_heads", 1 << 14, &result->num_kv_heads, result->num_heads));
  ASSAY_RETURN_IF_ERROR(read("vocab_size", kMaxSize, &result->vocab_size));
  ASSAY_ASSIGN_OR_RETURN(result->max_position_embeddings,
                         config.Whole("max_position_embeddings", kMaxPositions));
  if (result->num_heads % result->num_kv_heads != 0) {
    return config.Bad("num_key_value_heads",
                      fmt::format("a divisor of num_attention_heads {}", result->num_heads));
  }
  const bool explicit_head_dim = config.Find("head_dim") != nullptr;
  if (!explicit_head_dim && result->family != Family::kQwen3 &&
      result->hidden_size % result->num_heads != 0) {
    return config.Bad("head_dim", fmt::format("a head_dim, since hidden_size {} is no multiple of "
                                              "num_attention_heads {}",
                                              result->hidden_size, result->num_heads));
  }
  const int default_head_dim =
      result->family == Family::kQwen3 ? 128 : std::max(result->hidden_size / result->num_heads, 1);
  ASSAY_RETURN_IF_ERROR(read("head_dim", 1 << 12, &result->head_dim, default_head_dim));
  if (result->head_dim % 2 != 0) return config.Bad("head_dim", "an even number (RoPE pairs)");
  if (int64_t{result->num_heads} * result->head_dim > kMaxSize) {
    return config.Bad("num_attention_heads",
                      fmt::format("at most {} over head_dim {}", kMaxSize, result->head_dim));
  }
  return absl::OkStatus();
}

// Adds the ids that are not there yet, so that config.json's come first.
absl::Status AddEosIds(const Reader& reader, ModelConfig* result) {
  ASSAY_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, reader.Ids("eos_token_id"));
  for (const int32_t id : ids) {
    if (id >= result->vocab_size) {
      return reader.Bad("eos_token_id", fmt::format("ids below vocab_size {}", result->vocab_size));
    }
    if (std::ranges::find(result->eos_token_ids, id) == result->eos_token_ids.end()) {
      result->eos_token_ids.push_back(id);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir) {
  const std::string path = model_dir + "/config.json";
  ASSAY_ASSIGN_OR_RETURN(const Json json, ReadObject(path));
  const Reader config(json, path);
  ModelConfig result;
  ASSAY_ASSIGN_OR_RETURN(result.family, ReadFamily(config));
  ASSAY_RETURN_IF_ERROR(ReadSizes(config, &result));
  ASSAY_RETURN_IF_ERROR(RefuseUnsupported(config, result.num_layers));
  ASSAY_RETURN_IF_ERROR(ReadRope(config, &result));
  ASSAY_ASSIGN_OR_RETURN(const double eps, config.Positive("rms_norm_eps", 1e-6));
  result.rms_norm_eps = static_cast<float>(eps);
  ASSAY_ASSIGN_OR_RETURN(result.tie_word_embeddings, config.Bool("tie_word_embeddings", false));
  // Qwen2 has QKV biases and no other, whatever attention_bias says: its code does not read it.
  ASSAY_ASSIGN_OR_RETURN(const bool attention_bias, config.Bool("attention_bias", false));
  result.qkv_bias = result.family == Family::kQwen2 || attention_bias;
  result.o_bias = result.family != Family::kQwen2 && attention_bias;
  result.qk_norm = result.family == Family::kQwen3;

  ASSAY_RETURN_IF_ERROR(AddEosIds(config, &result));
  ASSAY_ASSIGN_OR_RETURN(const std::vector<int32_t> bos, config.Ids("bos_token_id"));
  if (!bos.empty()) result.bos_token_id = bos.front();
  const std::string generation_path = model_dir + "/generation_config.json";
  std::error_code error;
  if (std::filesystem::exists(generation_path, error)) {
    ASSAY_ASSIGN_OR_RETURN(const Json generation, ReadObject(generation_path));
    ASSAY_RETURN_IF_ERROR(AddEosIds(Reader(generation, generation_path), &result));
  }
  return result;
}

}  // namespace assay::engine
