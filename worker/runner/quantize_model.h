// Making an artifact from a model folder, for the agent's jobs and for the command line.
#pragma once

#include <absl/status/status.h>

#include <map>
#include <string>

#include "assay/v1/common.pb.h"
#include "engine/quant/quantize.h"

namespace assay::worker {

struct QuantizeArguments {
  std::string model_dir;
  std::string output_dir;  // must not exist; appears complete or not at all
  engine::MethodSpec method;
  std::string calibration_jsonl;  // {"question", "response"} or {"text"} a line
  std::string calibration_name;   // for error messages and provenance
  std::string artifact_key;       // recorded; empty outside a sweep
  int num_threads = 1;
};

engine::MethodSpec ToMethodSpec(const v1::QuantMethod& method);

// INVALID_ARGUMENT for an unknown method or bits, a method that needs calibration without any, and
// bad records ("NAME:3: ..."); else what the engine says.
absl::Status QuantizeModelFolder(const QuantizeArguments& arguments);

}  // namespace assay::worker
