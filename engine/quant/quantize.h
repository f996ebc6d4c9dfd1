// Making an artifact: a model folder and a method in, an artifact folder out.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

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
  int group_size = 0;  // 0: the method's default (128); -1: per channel
  bool symmetric = false;
  bool pre_bias = false;  // kvquant_star
  int virtual_shards = 1;
  std::map<std::string, std::string> parameters;
};

// One calibration document.
struct CalibrationText {
  std::string question;  // chat-formatted as the user's turn when not empty
  std::string text;      // what follows it (or stands alone)
};

// Checks that method and bits are known and go together and fills in defaults. INVALID_ARGUMENT
// says which methods and which bits exist. Needs no model: the planner's rules and these are held
// together by a test.
absl::StatusOr<MethodSpec> ResolveMethod(MethodSpec spec);

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
  std::vector<std::vector<int32_t>> calibration_ids;
  CalibrationForward forward;  // needed when NeedsCalibration
  std::map<std::string, std::string> provenance;
};

absl::Status Quantize(const QuantizeRequest& request);

}  // namespace assay::engine
