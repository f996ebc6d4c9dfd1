// Making an artifact: a model folder and a method in, an artifact folder out.
//
// bf16          nothing is quantized; the artifact is the model with an empty description
// rtn           W-16-16, W 2..8: round to nearest, groups of group_size inputs or one per row and
//               shard, min and max with zero included (uniform.h), float32 scales
// kvquant_star  16-16-KV, KV 2..8: keys per channel before RoPE with static parameters from
//               calibration, optionally before their bias; values per token and head
// quarot        16-16-KV, KV 2..8: Hadamard on queries and keys after RoPE, keys and values per
//               token and head with clip ratio 0.95; values are not rotated
// KVQuant is arXiv 2401.18079, QuaRot arXiv 2404.00456.
//
// The artifact depends on the request alone: equal requests give equal bytes.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/model/observer.h"

namespace assay::engine {

// What the user asks for; every default is filled in by ResolveMethod.
struct MethodSpec {
  std::string method;  // "bf16", "rtn", "kvquant_star", "quarot"
  std::string bits;    // "W-A-KV"
  // rtn: input columns per scale; 0 is the default 128, -1 one per row (and shard). Where it does
  // not divide in_features the last group of a row is shorter.
  int group_size = 0;
  bool symmetric = false;  // rtn
  bool pre_bias = false;   // kvquant_star; without effect on a model whose k_proj has no bias
  int virtual_shards = 1;  // rtn: as if run on T GPUs; 0 is 1. Matters with group_size -1 only
  // By the method's own names; quarot has k_clip_ratio and v_clip_ratio.
  std::map<std::string, std::string> parameters;
};

// One calibration document.
struct CalibrationText {
  std::string question;  // chat-formatted as the user's turn when not empty
  std::string text;      // what follows it (or stands alone)
};

// Checks that method, bits and parameters are known and go together and fills in defaults;
// resolving twice changes nothing. INVALID_ARGUMENT says which methods and which bits exist. Needs
// no model: the planner's rules and these are held together by a test.
absl::StatusOr<MethodSpec> ResolveMethod(MethodSpec spec);

// The methods of this version, sorted.
const std::vector<std::string>& KnownMethods();

// True when the method needs calibration texts.
bool NeedsCalibration(const MethodSpec& spec);

// Runs the unquantized model over token ids and shows the observer what happens; provided by the
// runtime, so that quant does not depend on it.
using CalibrationForward =
    std::function<absl::Status(const std::vector<int32_t>& ids, ForwardObserver* observer)>;

struct QuantizeRequest {
  std::string model_dir;
  std::string output_dir;  // must not exist; appears complete (by rename) or not at all
  MethodSpec method;
  std::vector<std::vector<int32_t>> calibration_ids;  // empty documents are passed over
  CalibrationForward forward;                         // needed when NeedsCalibration
  std::map<std::string, std::string> provenance;
};

// INVALID_ARGUMENT for a request that can never work (method, model, calibration, a model that is
// quantized already), ALREADY_EXISTS when output_dir does, UNAVAILABLE when the disk refuses;
// errors of `forward` as they are.
absl::Status Quantize(const QuantizeRequest& request);

}  // namespace assay::engine
