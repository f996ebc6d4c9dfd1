#include "coordinator/planner/memory_need.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "coordinator/spec/method_rules.h"

namespace assay::coordinator {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;  // of one dimension
constexpr int64_t kMaxLayers = 10'000;
constexpr double kMaxBytes = 0x1p60;
constexpr double kScaleBits = 64;       // scale and zero point of a group of weights, in float32
constexpr double kCacheParamBits = 32;  // of one token's keys or values in one head
constexpr int64_t kBlockTokens = 64;    // the cache comes in such blocks
constexpr int64_t kCalibrationTokens = 4096;  // of the longest text
constexpr int32_t kUnquantized = 16;
constexpr int32_t kFloat32 = 32;

using Json = nlohmann::json;

struct BitWidths {
  int32_t weight = kUnquantized;
  int32_t cache = kUnquantized;
};

// Of "4-16-16"; what cannot be read counts as not quantized.
BitWidths ParseBits(const std::string& bits) {
  std::array<int32_t, 3> parts = {kUnquantized, kUnquantized, kUnquantized};
  const char* at = bits.data();
  const char* const end = at + bits.size();
  for (int32_t& part : parts) {
    const auto [next, error] = std::from_chars(at, end, part);
    if (error != std::errc() || part < 1 || part > 32) return {};
    at = next == end ? end : next + 1;
  }
  return {parts[0], parts[2]};
}

int64_t ToBytes(double bits) {
  return static_cast<int64_t>(std::ceil(std::min(bits / 8, kMaxBytes)));
}

// As stored: the next larger of the widths that the cache has.
double StoredBits(int32_t cache_bits) {
  for (const int32_t width : {3, 4, 8}) {
    if (cache_bits <= width) return width;
  }
  return kUnquantized;
}

// Of `vector_bits` for each token, head and layer, keys and values alike.
int64_t CacheOf(const ModelDimensions& model, double vector_bits, int64_t num_tokens,
                int32_t tensor_parallel_size) {
  const auto kv_heads =
      static_cast<double>(std::max<int64_t>(model.num_kv_heads, tensor_parallel_size));
  const int64_t num_blocks = (num_tokens + kBlockTokens - 1) / kBlockTokens;
  return ToBytes(2 * static_cast<double>(model.num_layers) * kv_heads * vector_bits *
                 static_cast<double>(num_blocks * kBlockTokens));
}

absl::Status ReadSize(const Json& json, const std::string& name, const char* key, int64_t limit,
                      int64_t* value) {
  const auto it = json.find(key);
  if (it == json.end() || !it->is_number_integer() || it->get<int64_t>() < 1 ||
      it->get<int64_t>() > limit) {
    return InvalidArgument("{}: {} must be a number from 1 to {}", name, key, limit);
  }
  *value = it->get<int64_t>();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelDimensions> ParseModelDimensions(const std::string& text,
                                                     const std::string& name) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return InvalidArgument("{}: not a JSON object", name);
  ModelDimensions model;
  const auto read = [&](const char* key, int64_t limit, int64_t* value) {
    return ReadSize(json, name, key, limit, value);
  };
  ASSAY_RETURN_IF_ERROR(read("hidden_size", kMaxSize, &model.hidden_size));
  ASSAY_RETURN_IF_ERROR(read("intermediate_size", kMaxSize, &model.intermediate_size));
  ASSAY_RETURN_IF_ERROR(read("num_hidden_layers", kMaxLayers, &model.num_layers));
  ASSAY_RETURN_IF_ERROR(read("num_attention_heads", kMaxSize, &model.num_heads));
  ASSAY_RETURN_IF_ERROR(read("vocab_size", kMaxSize, &model.vocab_size));
  ASSAY_RETURN_IF_ERROR(read("max_position_embeddings", kMaxSize, &model.max_position_embeddings));
  model.num_kv_heads = model.num_heads;
  if (json.contains("num_key_value_heads")) {
    ASSAY_RETURN_IF_ERROR(read("num_key_value_heads", kMaxSize, &model.num_kv_heads));
  }
  model.head_dim = model.hidden_size / model.num_heads;
  if (json.contains("head_dim") && !json["head_dim"].is_null()) {
    ASSAY_RETURN_IF_ERROR(read("head_dim", kMaxSize, &model.head_dim));
  }
  const Json tied = json.value("tie_word_embeddings", Json(false));
  model.tie_word_embeddings = tied.is_boolean() && tied.get<bool>();
  if (json.value("torch_dtype", Json()) == "float32") model.bit_width = 32;
  return model;
}

int64_t WeightBytes(const ModelDimensions& model, const storage::MethodRecord& method) {
  const auto hidden = static_cast<double>(model.hidden_size);
  const auto head_dim = static_cast<double>(model.head_dim);
  const double attention =
      hidden * head_dim * static_cast<double>(2 * model.num_heads + 2 * model.num_kv_heads);
  const double mlp = 3 * hidden * static_cast<double>(model.intermediate_size);
  const double linear = static_cast<double>(model.num_layers) * (attention + mlp);
  const double embedding =
      hidden * static_cast<double>(model.vocab_size) * (model.tie_word_embeddings ? 1 : 2);
  // Norms, and biases whether the family has them or not: too little to ask.
  const double vectors =
      static_cast<double>(model.num_layers) *
          (2 * hidden +
           head_dim * static_cast<double>(model.num_heads + 2 * model.num_kv_heads + 2)) +
      hidden;
  double bits = model.bit_width;
  if (const int32_t weight = ParseBits(method.bits).weight; weight < kUnquantized) {
    bits = weight + (method.group_size > 0 ? kScaleBits / method.group_size : 0);
  }
  return ToBytes(linear * bits + (embedding + vectors) * model.bit_width);
}

int64_t CacheBytes(const ModelDimensions& model, const storage::MethodRecord& method,
                   int64_t num_tokens, int32_t tensor_parallel_size) {
  const int32_t cache = ParseBits(method.bits).cache;
  const double vector_bits = static_cast<double>(model.head_dim) * StoredBits(cache) +
                             (cache < kUnquantized ? kCacheParamBits : 0);
  return CacheOf(model, vector_bits, num_tokens, tensor_parallel_size);
}

int64_t SequenceLength(const ModelDimensions& model, const storage::SamplingRecord& sampling) {
  return sampling.max_model_len > 0
             ? std::min(sampling.max_model_len, model.max_position_embeddings)
             : model.max_position_embeddings;
}

int64_t MemoryNeedBytes(const ModelDimensions& model, const storage::CellRecord& cell) {
  return WeightBytes(model, cell.method) + CacheBytes(model, cell.method,
                                                      SequenceLength(model, cell.sampling),
                                                      cell.tensor_parallel_size);
}

int64_t CpuMemoryNeedBytes(const ModelDimensions& model, const storage::CellRecord& cell) {
  return WeightBytes(model, cell.method) +
         CacheOf(model, static_cast<double>(model.head_dim) * kFloat32,
                 SequenceLength(model, cell.sampling), /*tensor_parallel_size=*/1);
}

int64_t CalibrationNeedBytes(const ModelDimensions& model, int32_t tensor_parallel_size) {
  const storage::MethodRecord baseline = BaselineMethod();
  return WeightBytes(model, baseline) +
         CacheBytes(model, baseline, std::min(kCalibrationTokens, model.max_position_embeddings),
                    tensor_parallel_size);
}

}  // namespace assay::coordinator
