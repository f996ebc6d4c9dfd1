// The example models under the methods of the demo: artifacts made by Assay, and what Hugging Face
// transformers says of them (README.md).
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace assay::engine::testing {

struct QuantizedCell {
  std::string model;
  std::string reference;  // the cell's name in the reference's files; empty without one
  std::string method;
  std::string bits;
  bool pre_bias = false;

  bool quantizes_cache() const { return method != "bf16" && method != "rtn"; }
  std::string name() const;  // for GoogleTest
};

// The folder to run: the model's, or an artifact made in `directory`.
absl::StatusOr<std::string> MakeCell(const QuantizedCell& cell, const std::string& directory);

// A teacher-forced sequence: target_logprobs[i] is that of ids[i + 1].
struct ReferenceSequence {
  std::vector<int32_t> ids;
  std::vector<double> target_logprobs;
};

std::vector<ReferenceSequence> ReadReference(const QuantizedCell& cell);

// Of each next token, from logits [num_tokens, vocab_size].
std::vector<double> TargetLogprobs(const std::vector<float>& logits,
                                   const std::vector<int32_t>& ids);

}  // namespace assay::engine::testing
