// The quantized model as data (DESIGN.md): what the engine executes. The engine knows no methods;
// every method of methods.md compiles to this description plus tensors, and every backend executes
// it exactly.
//
// An artifact is a folder: the model's config.json, tokenizer files, `assay_quant.json` (this
// description, the method with all parameters, provenance) and safetensors. A plain model folder is
// the description with everything at its default.
//
// Tensor names. A linear L ("model.layers.3.self_attn.q_proj") that is not quantized keeps
// L.weight; a quantized one has instead
//   L.qweight  U8  [out, ceil(in * bits / 8)]: codes along in-features, lowest bits first (a 3-bit
//              code may straddle bytes); E2M1: 4 bits, sign in the highest
//   L.scale    F32 [out, num_groups]  (E8M0: U8 exponents + 127)
//   L.zero     U8  [out, num_groups]  (asymmetric only)
//   L.perm     I32 [in]               (with_permutation: code column j is input perm[j])
// and for an input transform L.transform.{diagonal F32 [in], left F32 [a,a], right F32 [b,b]}, per
// shard [shards, a, a] and so on. The K cache's static tables are
//   model.layers.i.self_attn.k_cache.scale F32 [kv_heads, head_dim], .zero U8 likewise;
// learned cache matrices model.layers.i.self_attn.{k,v}_cache.matrix F32 [head_dim, head_dim] (and
// k_cache.query_matrix, what queries are multiplied by).
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace assay::engine {

// How codes become numbers.
enum class CodeType {
  kNone,     // not quantized: bf16 (or f32) as stored
  kUniform,  // integers of bit_width 2..8: scale * (q - zero), symmetric: scale * q
  kMxfp4,    // E2M1 elements, one E8M0 scale per 32
};

// What a linear's input is multiplied by before it is quantized, row-vector convention
// (methods.md §10.1, §13). Applied to each of `num_shards` equal slices of the input separately.
struct TransformSpec {
  enum class Kind { kNone, kHadamard, kKronecker, kMatrix, kHeadMix };
  Kind kind = Kind::kNone;
  bool with_diagonal = false;  // elementwise multiplication first
  // kKronecker: slice size = left * right; Y = P_L^T X P_R with X [left, right] row-major.
  // kHeadMix: X [heads, head_dim] <- O^T X. kMatrix: one square matrix over the slice.
  int left = 0;
  int right = 0;
};

// What a linear's input is rounded to, per token (and per shard slice).
struct InputQuantizerSpec {
  CodeType code_type = CodeType::kNone;
  int bit_width = 16;
  bool symmetric = false;
  float clip_ratio = 1;        // methods.md §1.4
  // Learned clipping (FlatQuant): per shard factors on max and min; empty is clip_ratio.
  std::vector<float> clip_max;
  std::vector<float> clip_min;
};

struct LinearSpec {
  CodeType code_type = CodeType::kNone;
  int bit_width = 16;
  bool symmetric = true;
  int group_size = -1;         // input columns per scale; -1 is the whole row (per shard: in / T)
  bool with_permutation = false;
  int num_shards = 1;          // virtual shards of the input (o_proj, down_proj): T
  TransformSpec input_transform;
  InputQuantizerSpec input_quantizer;
};

// One of K and V of the cache.
struct CacheSpec {
  CodeType code_type = CodeType::kNone;
  int bit_width = 16;
  bool symmetric = false;
  int group_size = 0;          // along head_dim; 0 is the whole head
  float clip_ratio = 1;
  std::optional<float> learned_clip_max;
  std::optional<float> learned_clip_min;
  enum class Granularity { kPerToken, kPerChannelStatic };
  Granularity granularity = Granularity::kPerToken;
  // Where the values are taken for quantization. V: always kAfterProjection.
  //   kBeforeBias   codes hold k - bias; reading adds the bias and applies RoPE (KVQuant* pre-bias)
  //   kBeforeRope   codes hold k with bias; reading applies RoPE
  //   kAfterRope    codes hold the rotated key
  enum class Position { kAfterProjection, kBeforeBias, kBeforeRope, kAfterRope };
  Position position = Position::kAfterRope;
  enum class Transform { kNone, kHadamard, kMatrix };
  Transform transform = Transform::kNone;   // K: on queries too, so that q.k is unchanged
};

struct QuantDescription {
  static constexpr int kFormatVersion = 1;

  // By the linear's full name; one that is absent is not quantized.
  std::map<std::string, LinearSpec> linears;
  CacheSpec k_cache;
  CacheSpec v_cache;
  int virtual_shards = 1;

  // Who made it; the engine does not read these.
  std::string method;                            // "rtn", "bf16"
  std::string bits;                              // "4-16-16"
  std::map<std::string, std::string> parameters; // all of them, defaults filled in
  std::map<std::string, std::string> provenance;

  bool quantizes_anything() const;
};

// JSON of assay_quant.json. INVALID_ARGUMENT names the key and its value.
std::string ToJson(const QuantDescription& description);
absl::StatusOr<QuantDescription> DescriptionFromJson(std::string_view json);

// The description of a model or artifact folder: assay_quant.json, or the default without one.
absl::StatusOr<QuantDescription> LoadDescription(const std::string& model_dir);

}  // namespace assay::engine
