#include "tests/unit/engine/decoder/random_model.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "base/status.h"
#include "engine/model/linears.h"

namespace assay::engine::testing {
namespace {

using Matrix = std::vector<double>;

// Every tensor of a decoder, with the scale of its random values.
struct TensorPlan {
  std::string name;
  std::vector<int64_t> shape;
  float mean = 0;
  float deviation = 1;
};

std::vector<TensorPlan> PlanTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  std::vector<TensorPlan> plan;
  plan.push_back({"model.embed_tokens.weight", {config.vocab_size, hidden}, 0, 0.5f});
  plan.push_back({"model.norm.weight", {hidden}, 1, 0.1f});
  if (!config.tie_word_embeddings) {
    plan.push_back({"lm_head.weight", {config.vocab_size, hidden}, 0, 0.3f});
  }
  for (const LinearInfo& info : QuantizableLinears(config)) {
    const float deviation = 1.2f / std::sqrt(static_cast<float>(info.in_features));
    plan.push_back({info.name + ".weight", {info.out_features, info.in_features}, 0, deviation});
    if (info.has_bias) plan.push_back({info.name + ".bias", {info.out_features}, 0, 0.5f});
  }
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    plan.push_back({prefix + "input_layernorm.weight", {hidden}, 1, 0.1f});
    plan.push_back({prefix + "post_attention_layernorm.weight", {hidden}, 1, 0.1f});
    if (!config.qk_norm) continue;
    plan.push_back({prefix + "self_attn.q_norm.weight", {config.head_dim}, 1, 0.1f});
    plan.push_back({prefix + "self_attn.k_norm.weight", {config.head_dim}, 1, 0.1f});
  }
  return plan;
}

// Float32 cut to bf16.
std::string UpperHalves(const std::string& floats) {
  std::string halves;
  for (size_t at = 0; at < floats.size(); at += 4) halves.append(floats, at + 2, 2);
  return halves;
}

// The tensors of a folder, by name, in double.
class Tensors {
 public:
  Tensors(const ModelConfig& config, const std::string& dir) {
    auto checkpoint = Checkpoint::Open(dir);
    ASSAY_CHECK(checkpoint.ok());
    for (const TensorPlan& plan : PlanTensors(config)) {
      auto values = (*checkpoint)->ReadFloats(plan.name, plan.shape);
      ASSAY_CHECK(values.ok(), "{}", plan.name);
      tensors_[plan.name] = Matrix(values->begin(), values->end());
    }
  }
  bool Contains(const std::string& name) const { return tensors_.contains(name); }
  const Matrix& operator[](const std::string& name) const { return tensors_.at(name); }

  Matrix Linear(const std::string& name, const Matrix& x) const {
    const Matrix& weight = (*this)[name + ".weight"];
    Matrix y(weight.size() / x.size());
    for (size_t i = 0; i < y.size(); ++i) {
      for (size_t k = 0; k < x.size(); ++k) y[i] += weight[i * x.size() + k] * x[k];
      if (Contains(name + ".bias")) y[i] += (*this)[name + ".bias"][i];
    }
    return y;
  }

  Matrix Norm(const std::string& name, const Matrix& x, double eps) const {
    double sum = 0;
    for (const double value : x) sum += value * value;
    const double factor = 1 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
    Matrix y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * factor * (*this)[name + ".weight"][i];
    return y;
  }

 private:
  std::map<std::string, Matrix> tensors_;
};

// RoPE with llama3 scaling, its constants spelled out.
double InverseFrequency(const ModelConfig& config, int i) {
  const double f = std::pow(config.rope_theta, -2.0 * i / config.head_dim);
  if (!config.rope_scaling) return f;
  const RopeScaling& scaling = *config.rope_scaling;
  const double original = static_cast<double>(scaling.original_max_position_embeddings);
  const double wavelength = 2 * 3.14159265358979323846 / f;
  if (wavelength < original / scaling.high_freq_factor) return f;
  if (wavelength > original / scaling.low_freq_factor) return f / scaling.factor;
  const double t = (original / wavelength - scaling.low_freq_factor) /
                   (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - t) * f / scaling.factor + t * f;
}

Matrix Rotate(const ModelConfig& config, const Matrix& head, int64_t position) {
  const int half = config.head_dim / 2;
  Matrix y(head.size());
  for (int i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * InverseFrequency(config, i);
    y[i] = head[i] * std::cos(angle) - head[i + half] * std::sin(angle);
    y[i + half] = head[i + half] * std::cos(angle) + head[i] * std::sin(angle);
  }
  return y;
}

// Splits a projection into heads, normed and rotated.
std::vector<Matrix> Heads(const ModelConfig& config, const Tensors& tensors, const Matrix& all,
                          const std::string& norm, int64_t position) {
  std::vector<Matrix> heads;
  for (size_t begin = 0; begin < all.size(); begin += config.head_dim) {
    Matrix head(all.begin() + begin, all.begin() + begin + config.head_dim);
    if (config.qk_norm) head = tensors.Norm(norm, head, config.rms_norm_eps);
    heads.push_back(Rotate(config, head, position));
  }
  return heads;
}

Matrix Attend(const Matrix& query, const std::vector<Matrix>& keys,
              const std::vector<Matrix>& values) {
  Matrix weights, output(query.size());
  double sum = 0;
  for (const Matrix& key : keys) {
    double score = 0;
    for (size_t d = 0; d < query.size(); ++d) score += query[d] * key[d];
    weights.push_back(std::exp(score / std::sqrt(static_cast<double>(query.size()))));
    sum += weights.back();
  }
  for (size_t t = 0; t < keys.size(); ++t) {
    for (size_t d = 0; d < query.size(); ++d) output[d] += weights[t] / sum * values[t][d];
  }
  return output;
}

}  // namespace

ModelConfig SmallConfig(Family family) {
  ModelConfig config;
  config.family = family;
  config.hidden_size = 40;
  config.intermediate_size = 72;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 18;
  config.vocab_size = 96;
  config.max_position_embeddings = 512;
  config.qkv_bias = family == Family::kQwen2;
  config.qk_norm = family == Family::kQwen3;
  return config;
}

void WriteModelConfig(const ModelConfig& config, const std::string& dir) {
  static const std::map<Family, std::string> kArchitectures = {
      {Family::kLlama, "LlamaForCausalLM"},
      {Family::kQwen2, "Qwen2ForCausalLM"},
      {Family::kQwen3, "Qwen3ForCausalLM"}};
  nlohmann::json json = {{"architectures", {kArchitectures.at(config.family)}},
                         {"hidden_size", config.hidden_size},
                         {"intermediate_size", config.intermediate_size},
                         {"num_hidden_layers", config.num_layers},
                         {"num_attention_heads", config.num_heads},
                         {"num_key_value_heads", config.num_kv_heads},
                         {"head_dim", config.head_dim},
                         {"vocab_size", config.vocab_size},
                         {"rms_norm_eps", config.rms_norm_eps},
                         {"rope_theta", config.rope_theta},
                         {"max_position_embeddings", config.max_position_embeddings},
                         {"tie_word_embeddings", config.tie_word_embeddings},
                         {"eos_token_id", 0}};
  if (config.rope_scaling) {
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", config.rope_scaling->factor},
                            {"low_freq_factor", config.rope_scaling->low_freq_factor},
                            {"high_freq_factor", config.rope_scaling->high_freq_factor},
                            {"original_max_position_embeddings",
                             config.rope_scaling->original_max_position_embeddings}};
  }
  std::ofstream(dir + "/config.json") << json.dump();
}

void WriteRandomModel(const ModelConfig& config, const std::string& dir, uint64_t seed,
                      DType dtype) {
  WriteModelConfig(config, dir);
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<TensorToWrite> tensors;
  for (const TensorPlan& plan : PlanTensors(config)) {
    TensorToWrite tensor{.name = plan.name, .dtype = dtype, .shape = plan.shape};
    int64_t size = 1;
    for (const int64_t side : plan.shape) size *= side;
    std::vector<float> values(size);
    for (float& value : values) value = plan.mean + plan.deviation * normal(random);
    tensor.bytes.assign(reinterpret_cast<const char*>(values.data()), size * sizeof(float));
    if (dtype == DType::kBF16) tensor.bytes = UpperHalves(tensor.bytes);
    tensors.push_back(std::move(tensor));
  }
  const absl::Status written = WriteSafetensors(dir + "/model.safetensors", tensors);
  ASSAY_CHECK(written.ok(), "{}", Message(written));
}

std::vector<double> ReferenceLogits(const ModelConfig& config, const std::string& dir,
                                    std::span<const int32_t> ids) {
  const Tensors tensors(config, dir);
  const Matrix& embedding = tensors["model.embed_tokens.weight"];
  const int group = config.num_heads / config.num_kv_heads;
  // [layer][kv head][token]
  std::vector<std::vector<std::vector<Matrix>>> keys(config.num_layers), values(config.num_layers);
  std::vector<double> logits;
  for (size_t position = 0; position < ids.size(); ++position) {
    const auto row = embedding.begin() + int64_t{ids[position]} * config.hidden_size;
    Matrix hidden(row, row + config.hidden_size);
    for (int layer = 0; layer < config.num_layers; ++layer) {
      const std::string prefix = fmt::format("model.layers.{}.", layer);
      const std::string attention = prefix + "self_attn.";
      Matrix x = tensors.Norm(prefix + "input_layernorm", hidden, config.rms_norm_eps);
      const auto queries = Heads(config, tensors, tensors.Linear(attention + "q_proj", x),
                                 attention + "q_norm", static_cast<int64_t>(position));
      const auto new_keys = Heads(config, tensors, tensors.Linear(attention + "k_proj", x),
                                  attention + "k_norm", static_cast<int64_t>(position));
      const Matrix new_values = tensors.Linear(attention + "v_proj", x);
      keys[layer].resize(config.num_kv_heads);
      values[layer].resize(config.num_kv_heads);
      for (int head = 0; head < config.num_kv_heads; ++head) {
        const auto begin = new_values.begin() + head * config.head_dim;
        keys[layer][head].push_back(new_keys[head]);
        values[layer][head].emplace_back(begin, begin + config.head_dim);
      }
      Matrix attended;
      for (int head = 0; head < config.num_heads; ++head) {
        const Matrix one =
            Attend(queries[head], keys[layer][head / group], values[layer][head / group]);
        attended.insert(attended.end(), one.begin(), one.end());
      }
      const Matrix update = tensors.Linear(attention + "o_proj", attended);
      for (size_t i = 0; i < hidden.size(); ++i) hidden[i] += update[i];

      x = tensors.Norm(prefix + "post_attention_layernorm", hidden, config.rms_norm_eps);
      Matrix gate = tensors.Linear(prefix + "mlp.gate_proj", x);
      const Matrix up = tensors.Linear(prefix + "mlp.up_proj", x);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      const Matrix down = tensors.Linear(prefix + "mlp.down_proj", gate);
      for (size_t i = 0; i < hidden.size(); ++i) hidden[i] += down[i];
    }
    const Matrix normed = tensors.Norm("model.norm", hidden, config.rms_norm_eps);
    const Matrix& head = config.tie_word_embeddings ? embedding : tensors["lm_head.weight"];
    for (int v = 0; v < config.vocab_size; ++v) {
      double logit = 0;
      for (int k = 0; k < config.hidden_size; ++k) {
        logit += head[int64_t{v} * config.hidden_size + k] * normed[k];
      }
      logits.push_back(logit);
    }
  }
  return logits;
}

}  // namespace assay::engine::testing
