// Cosines and sines of rotary positions, computed as the reference does: inverse frequencies and
// angles in float32, llama3 scaling of the frequencies where the model asks for it.
//
// Grows with the longest position seen, since a table of 131,072 positions would cost 64 MiB that
// short runs never read. EnsurePositions excludes readers; reading is thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/config.h"

namespace assay::engine {

class RopeTable {
 public:
  explicit RopeTable(const ModelConfig& config);

  void EnsurePositions(int64_t num_positions);

  // [head_dim / 2] each; `position` is below what was ensured.
  const float* cosines(int64_t position) const { return &cosines_[position * half_]; }
  const float* sines(int64_t position) const { return &sines_[position * half_]; }
  int half() const { return half_; }

  const std::vector<float>& inverse_frequencies() const { return inverse_frequencies_; }

 private:
  int half_;
  std::vector<float> inverse_frequencies_;  // [half]
  std::vector<float> cosines_;              // [positions, half]
  std::vector<float> sines_;
};

}  // namespace assay::engine
