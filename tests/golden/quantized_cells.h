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

// Of an artifact whose linears are quantized and whose cache is not: a plain model in `directory`
// with each weight decoded and rounded to bf16, as a GPU multiplies it.
absl::StatusOr<std::string> DecodeToBf16(const std::string& artifact_dir,
                                         const std::string& directory);

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
