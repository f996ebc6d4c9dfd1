// An artifact folder in the making: what a method changes of a model, and writing the result.
#pragma once

#include <absl/status/status.h>

#include <set>
#include <string>
#include <vector>

#include "engine/quant/description.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {

// The model's tensors less `dropped`, with `tensors` added or in the place of those of their name.
struct Artifact {
  QuantDescription description;
  std::vector<TensorToWrite> tensors;
  std::set<std::string> dropped;
};

// Writes the folder: the model's configuration and tokenizer files as they are, assay_quant.json
// and model.safetensors. Everything goes to a temporary folder beside `output_dir`, is fsynced and
// gets its name by a rename, so that the folder is complete or not there. ALREADY_EXISTS when
// output_dir exists, UNAVAILABLE when the disk refuses; both leave nothing behind.
absl::Status WriteArtifact(const std::string& model_dir, const Checkpoint& checkpoint,
                           const Artifact& artifact, const std::string& output_dir);

}  // namespace assay::engine
