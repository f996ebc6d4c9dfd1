// Small models with random weights, and what they should compute: the forward pass written down a
// second time, in double precision, one token and one element at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/config.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine::testing {

// Two layers, four query heads over two KV heads, a vocabulary of 96.
ModelConfig SmallConfig(Family family);

// Writes config.json alone.
void WriteModelConfig(const ModelConfig& config, const std::string& dir);

// Writes config.json and model.safetensors into the folder, float32 or bf16. The logits are spread
// enough that sampling from them is a choice.
void WriteRandomModel(const ModelConfig& config, const std::string& dir, uint64_t seed,
                      DType dtype = DType::kF32);

// logits [ids.size(), vocab_size] of the model in the folder.
std::vector<double> ReferenceLogits(const ModelConfig& config, const std::string& dir,
                                    std::span<const int32_t> ids);

}  // namespace assay::engine::testing
