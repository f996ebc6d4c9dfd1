// The quantized model as data: what the engine executes. The engine knows no methods;
// every method compiles to this description plus tensors, and every backend executes
// it exactly.
//
// An artifact is a folder: the model's config.json, tokenizer files, `assay_quant.json` (this
// description, the method with all parameters, provenance) and safetensors. A plain model folder is
// the description with everything at its default.
//
// Tensor names. A linear L ("model.layers.3.self_attn.q_proj") that is not quantized keeps
// L.weight; a quantized one has instead
//   L.qweight  U8  [out, ceil(in * bits / 8)]: codes along in-features, lowest bits first (a 3-bit
//              code may straddle bytes); symmetric: two's complement; E2M1: sign in the highest
//   L.scale    F32 [out, num_groups]; E8M0: U8 [out, in / 32], exponents + 127
//   L.zero     U8  [out, num_groups]  (asymmetric only)
//   L.perm     I32 [in]               (with_permutation: code column j is input perm[j])
// where num_groups is ceil(in / group_size), the last group being shorter when group_size does not
// divide in, or the number of shards when group_size is -1. An input transform adds
//   L.transform.diagonal F32 [in]
//   L.transform.left     F32 [a, a]   (Kronecker, head mix), .right F32 [b, b] (Kronecker)
//   L.transform.matrix   F32 [n, n]   (n = in, or in / T)
// with a leading [T] on all but the diagonal when T = num_shards > 1. Caches add, for x in {k, v}
// and P = "model.layers.i.self_attn.x_cache",
//   P.scale F32 [kv_heads, head_dim], P.zero U8 likewise   (static per channel)
//   P.clip F32 [2]: factors on the maximum and on the minimum   (learned clipping)
//   P.matrix F32 [head_dim, head_dim]: row vectors k <- k P; for K also P.query_matrix: q <- q M
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/config.h"
#include "engine/quant/uniform.h"

namespace assay::engine {

// How codes become numbers.
enum class CodeType {
  kNone,     // not quantized: bf16 (or f32) as stored
  kUniform,  // integers of bit_width 2..8: scale * (q - zero), symmetric: scale * q
  kMxfp4,    // E2M1 elements, one E8M0 scale per 32
};

// What a linear's input is multiplied by before it is quantized, row-vector convention.
// Applied to each of `num_shards` equal slices of the input separately.
struct TransformSpec {
  enum class Kind { kNone, kHadamard, kKronecker, kMatrix, kHeadMix };
  Kind kind = Kind::kNone;
  bool with_diagonal = false;  // elementwise multiplication first
  // kKronecker: slice size = left * right; Y = P_L^T X P_R with X [left, right] row-major.
  // kHeadMix: X [heads, head_dim] <- O^T X. kMatrix: one square matrix over the slice.
  int left = 0;
  int right = 0;
  // The linear under whose name the tensors are; empty is this one. q, k, v (and gate, up) that
  // share a transform name one owner, so that it is stored and run once.
  std::string owner;

  bool operator==(const TransformSpec&) const = default;
};

// What a linear's input is rounded to, per token (and per shard slice).
struct InputQuantizerSpec {
  CodeType code_type = CodeType::kNone;
  int bit_width = 16;
  bool symmetric = false;
  float clip_ratio = 1;  // on the range, zero included; what lies outside saturates
  // Learned clipping (FlatQuant): per shard factors on max and min; empty is clip_ratio.
  std::vector<float> clip_max;
  std::vector<float> clip_min;
  Ties ties = Ties::kToEven;  // MXFP4 only

  bool operator==(const InputQuantizerSpec&) const = default;
};

struct LinearSpec {
  CodeType code_type = CodeType::kNone;
  int bit_width = 16;
  bool symmetric = true;
  int group_size = -1;  // input columns per scale; -1 is the whole row (per shard: in / T)
  bool with_permutation = false;
  int num_shards = 1;  // virtual shards of the input (o_proj, down_proj): T
  TransformSpec input_transform;
  InputQuantizerSpec input_quantizer;

  bool operator==(const LinearSpec&) const = default;
};

// One of K and V of the cache.
struct CacheSpec {
  CodeType code_type = CodeType::kNone;
  int bit_width = 16;
  bool symmetric = false;
  int group_size = 0;  // along head_dim; 0 is the whole head
  float clip_ratio = 1;
  bool learned_clip = false;  // a factor each for maximum and minimum, per layer (FlatQuant)
  enum class Granularity { kPerToken, kPerChannelStatic };
  Granularity granularity = Granularity::kPerToken;
  // Where the values are taken for quantization. V: always kAfterProjection.
  //   kBeforeBias   codes hold k - bias; reading adds the bias and applies RoPE (KVQuant* pre-bias)
  //   kBeforeRope   codes hold k with bias; reading applies RoPE
  //   kAfterRope    codes hold the rotated key
  enum class Position { kAfterProjection, kBeforeBias, kBeforeRope, kAfterRope };
  Position position = Position::kAfterRope;
  enum class Transform { kNone, kHadamard, kMatrix };
  Transform transform = Transform::kNone;  // K: on queries too, so that q.k is unchanged
  Ties ties = Ties::kToEven;               // MXFP4 only

  bool operator==(const CacheSpec&) const = default;
};

struct QuantDescription {
  static constexpr int kFormatVersion = 1;

  // By the linear's full name; one that is absent is not quantized.
  std::map<std::string, LinearSpec> linears;
  CacheSpec k_cache;
  CacheSpec v_cache{.position = CacheSpec::Position::kAfterProjection};
  int virtual_shards = 1;

  // Who made it; the engine does not read these.
  std::string method;                             // "rtn", "bf16"
  std::string bits;                               // "4-16-16"
  std::map<std::string, std::string> parameters;  // all of them, defaults filled in
  std::map<std::string, std::string> provenance;

  bool quantizes_anything() const;
  bool operator==(const QuantDescription&) const = default;
};

inline constexpr char kDescriptionFile[] = "assay_quant.json";

// JSON of assay_quant.json. INVALID_ARGUMENT names the key and its value, or says what contradicts
// itself (CheckConsistent).
std::string ToJson(const QuantDescription& description);
absl::StatusOr<QuantDescription> DescriptionFromJson(std::string_view json);

// Whether the parts go together, whatever the model. INVALID_ARGUMENT names the linear or cache.
absl::Status CheckConsistent(const QuantDescription& description);

// The description of a model or artifact folder: assay_quant.json, or the default without one.
absl::StatusOr<QuantDescription> LoadDescription(const std::string& model_dir);

// Whether the description can be run on the model: every linear exists, shards and groups divide
// what they split, Hadamard orders exist. INVALID_ARGUMENT names the linear or the cache.
absl::Status CheckFits(const QuantDescription& description, const ModelConfig& config);

}  // namespace assay::engine
